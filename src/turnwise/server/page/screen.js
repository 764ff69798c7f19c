// The parts of the screen that all other modules use.

import { t } from "./texts.js";

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function showLink(state) {
  $("link").textContent = state === "lost" ? t("reconnecting") : "";
}

// `action`, if any, is [label, function] of a button beside the text.
export function notify(text, action) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
  if (!action) return;
  const button = element("button", "", action[0]);
  button.type = "button";
  button.onclick = action[1];
  $("notice").append(" ", button);
}

export function explain(problem) {
  notify(problem.status === 0 ? t("offline") : problem.message);
}

export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  button.classList.add("did");
  say(t("copied"));
  setTimeout(() => button.classList.remove("did"), 1500);
}

export function say(text) { $("spoken").textContent = text; }

// The end stays in view until the person scrolls away from it, even if the answer, the window, a
// phone's keyboard or a notice changes its size.

let following = true;
let last = 0;

export const atEnd = () => following;

export function toEnd() {
  following = true;
  $("scroller").scrollTop = $("scroller").scrollHeight;
  $("latest").hidden = true;
}

$("scroller").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  // The distance alone is not enough: the window may have shrunk since. Only a person scrolls up.
  if (scrollHeight - scrollTop - clientHeight < 80) following = true;
  else if (scrollTop < last) following = false;
  last = scrollTop;
  $("latest").hidden = following;
});
const watch = new ResizeObserver(() => { if (following) toEnd(); });
watch.observe($("scroller"));
watch.observe($("column"));

// Do not change text that a person has selected.

const waiting = new Map();

function selected(place) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(place, true);
}

// Do `work` on a place now or, if it is selected, as soon as it is not.
export function whenNotSelected(place, work) {
  if (selected(place)) waiting.set(place, work);
  else {
    waiting.delete(place);
    work();
  }
}

document.addEventListener("selectionchange", () => {
  for (const [place, work] of [...waiting]) {
    if (selected(place)) continue;
    waiting.delete(place);
    work();
  }
});

// Move parts of the page without losing the selection in them.
export function keepSelection(work) {
  const { anchorNode, anchorOffset, focusNode, focusOffset, isCollapsed } = getSelection();
  work();
  if (isCollapsed) return;  // that is the caret in the field
  if (anchorNode?.isConnected && focusNode?.isConnected) {
    getSelection().setBaseAndExtent(anchorNode, anchorOffset, focusNode, focusOffset);
  }
}

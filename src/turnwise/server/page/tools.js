// What a person can do with a message: change it, have its answer again, go on from it elsewhere.

import { copy, element, explain, say } from "./screen.js";
import { t } from "./texts.js";

const MARK = {
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  again: "M4 12a8 8 0 1 0 2.500-5.800M4 4v4.500h4.500",
  copy: "M9 9h10v11H9zM5 15V4h10",
  up: "M7 11l4-7c1.500 0 2.500 1 2.500 2.500L13 10h6l-1.500 9H7zM7 11H4v8h3",
  down: "M7 13l4 7c1.500 0 2.500-1 2.500-2.500L13 14h6l-1.500-9H7zM7 13H4V5h3",
  branch: "M6 4v16M6 14c0-4 12-2 12-8M18 6V4M18 6h0M6 20h0M15 7l3-3 3 3",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", MARK[name]);
  svg.append(path);
  return svg;
}

/** A row of buttons; `all` are [icon, label, what it does, whether it is pressed], and the time. */
export function tools(all, time) {
  const row = element("div", "tools");
  for (const [name, label, press, pressed] of all) {
    const button = element("button", name);
    if (pressed !== undefined) button.setAttribute("aria-pressed", pressed);
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.append(icon(name));
    button.onclick = () => press(button);
    row.append(button);
  }
  row.append(element("time", "", time));
  return row;
}

/** Two buttons with which a person judges an answer. */
export function judging(session, message) {
  const given = message.feedback?.value;
  const judge = (value) => (button) => session.judge(message.id, value).then(() => {
    for (const one of button.parentNode.querySelectorAll(".up, .down")) one.setAttribute("aria-pressed", one === button);
    say(t("thanks"));
  }, explain);
  return [["up", t("good"), judge("up"), given === "up"], ["down", t("bad"), judge("down"), given === "down"]];
}

/** Each block of code has a button that copies it. */
export function copyButtons(place) {
  for (const code of place.querySelectorAll("pre > code")) {
    const button = element("button", "copy-code", t("copy"));
    button.type = "button";
    button.onclick = () => copy(code.textContent, button);
    code.parentNode.append(button);
  }
}

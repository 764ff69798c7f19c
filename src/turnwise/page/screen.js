// The parts of the screen that everything else speaks to.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function showLink(state) {
  $("link").textContent = state === "lost" ? "Reconnecting…" : "";
}

export function notify(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

export function explain(problem) {
  const offline = "The server cannot be reached. Your message is kept and sent as soon as it can be.";
  notify(problem.status === 0 ? offline : problem.message);
}

export function say(text) { $("spoken").textContent = text; }

export function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  return scrollHeight - scrollTop - clientHeight < 80;
}

export function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
  $("latest").hidden = true;
}

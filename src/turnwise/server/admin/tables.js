// Tables and lists that are redrawn only where something has changed.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A time in few characters: 3 ms, 1.2 s, 4 min, 3 h, 2 d. */
export function seconds(value) {
  if (value < 0.001) return "0 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

function cell(content) {
  const made = element("td");
  const { text, href, className, title } = typeof content === "string" ? { text: content } : content;
  const inner = href ? Object.assign(element("a", "", text), { href }) : text;
  if (className) made.append(element("span", className, text));
  else made.append(inner);
  if (title) made.title = title;
  return made;
}

/** Fill a place's table: `rows` of texts, or of {text, href, className, title}; `note` stands below it. */
export function fill(place, heads, rows, note = "") {
  const now = JSON.stringify([rows, note]);
  if (place.dataset.shown === now) return;
  place.dataset.shown = now;
  const table = place.querySelector("table");
  const focused = table.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const head = element("tr");
  for (const name of heads) head.append(Object.assign(element(name ? "th" : "td", "", name), name ? { scope: "col" } : {}));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map(cell));
    body.append(line);
  }
  table.hidden = !rows.length;
  table.replaceChildren(top, body);
  place.querySelector(".note")?.remove();
  if (note) place.append(element("p", "note", note));
  if (focused) [...table.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
}

/** Fill a list of terms: each [name, value, more about it, class]. */
export function list(place, all) {
  const now = JSON.stringify(all);
  if (place.dataset.shown === now) return;
  place.dataset.shown = now;
  place.replaceChildren(...all.map(([name, value, more, className]) => {
    const box = element("div", className);
    box.append(element("dt", "", name), element("dd", "", `${value}`));
    if (more) box.append(element("dd", "more", more));
    return box;
  }));
}

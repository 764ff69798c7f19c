// What a person can do with a message: change it, have its answer again, go on from it elsewhere.

import { element } from "./screen.js";

const MARK = {
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  again: "M4 12a8 8 0 1 0 2.500-5.800M4 4v4.500h4.500",
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

/** A row of buttons; `all` are [icon, label, what it does]. */
export function tools(all) {
  const row = element("div", "tools");
  for (const [name, label, press] of all) {
    const button = element("button");
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.append(icon(name));
    button.onclick = press;
    row.append(button);
  }
  return row;
}

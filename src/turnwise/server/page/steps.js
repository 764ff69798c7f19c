// What the bot does while it answers: each step is one line that folds open.

import { element } from "./screen.js";
import { t } from "./texts.js";

const MARK = { tool: "M14 6a4 4 0 0 0-5 5L4 16l4 4 5-5a4 4 0 0 0 5-5l-2.500 2.500-3-1-1-3z", reasoning: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.500 11c.5.400 1 1 1 2h5c0-1 .5-1.600 1-2A6 6 0 0 0 12 3z", work: "M5 12h14M13 6l6 6-6 6" };

function icon(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", MARK[kind] || MARK.work);
  svg.append(path);
  return svg;
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

export class Steps {
  constructor(steps = []) {
    this.box = element("div", "steps");
    this.drawn = new Map();
    for (const step of steps) this.take(step);
  }

  // A step has started, or ended.
  take(step) {
    let drawn = this.drawn.get(step.id);
    if (!drawn) {
      drawn = { details: element("details"), text: element("div", "thought") };
      drawn.state = element("span", "state");
      drawn.parts = element("div", "parts");
      const line = element("summary");
      line.append(icon(step.kind), element("span", "name", step.name.replaceAll("_", " ")), drawn.state);
      drawn.details.append(line, drawn.text, drawn.parts);
      this.drawn.set(step.id, drawn);
      this.box.append(drawn.details);
    }
    drawn.details.className = `step ${step.kind} ${step.status}`;
    drawn.state.textContent = step.error ? step.error.message : t(step.status);
    if (step.text) drawn.text.textContent = step.text;
    drawn.parts.replaceChildren();
    for (const [label, value] of [[t("input"), step.input], [t("output"), step.output]]) {
      if (value !== undefined) drawn.parts.append(element("h4", "", label), element("pre", "", shown(value)));
    }
    if (step.truncated) drawn.parts.append(element("div", "meta", t("long")));
  }

  say(id, text) {
    this.drawn.get(id)?.text.append(text);
  }
}

// Pictures of the last minutes: one or two lines over time, with the highest value at the side.

import { element } from "./tables.js";

const [WIDTH, HEIGHT, SPAN] = [300, 90, 300]; // the span in seconds

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A round number that is not below `value`. */
function above(value) {
  if (value <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * size).find((n) => n >= value);
}

/** Draw into a figure: `lines` are [name, its value of a point, class]. */
export function chart(figure, points, lines, words = (value) => `${Math.round(value * 10) / 10}`) {
  const end = points.at(-1)?.at ?? 0;
  const shown = points.filter(({ at }) => at > end - SPAN);
  const most = above(Math.max(0, ...shown.flatMap((point) => lines.map(([, of]) => of(point) ?? 0))));
  const x = (point) => (WIDTH * (1 - (end - point.at) / SPAN)).toFixed(1);
  const y = (value) => (HEIGHT - 4 - (value / most) * (HEIGHT - 8)).toFixed(1);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(svg("path", { class: "grid", d: `M0 ${y(most)}H${WIDTH}M0 ${y(most / 2)}H${WIDTH}M0 ${y(0)}H${WIDTH}` }));
  const legend = element("p", "legend");
  for (const [name, of, className = ""] of lines) {
    let path = "";
    let before = null;
    for (const point of shown) {
      const value = of(point);
      if (value === null) { before = null; continue; }
      path += `${before && point.at - before.at < 15 ? "L" : "M"}${x(point)} ${y(value)}`;
      before = point;
    }
    picture.append(svg("path", { class: `line ${className}`, d: path || "M0 0" }));
    const last = shown.length ? of(shown.at(-1)) : null;
    legend.append(element("span", `key ${className}`, `${name} ${last === null ? "–" : words(last)}`));
  }
  figure.querySelector(".plot")?.remove();
  figure.querySelector(".legend")?.remove();
  const plot = element("div", "plot");
  plot.append(picture, element("span", "most", words(most)));
  figure.append(plot, legend);
}

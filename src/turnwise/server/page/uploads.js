// Files: chosen, pasted or dropped, kept on the server, and shown to who may read the session.

import { $, element, explain, notify } from "./screen.js";
import { t } from "./texts.js";

let attached = [];  // of the message that is being written: {name, type, url} once it is on the server
let session = null;  // makes or gives the session that the files belong to
let changed = () => {};

export function start(whose, onChange) {
  session = whose;
  changed = onChange;
}

export const waiting = () => attached.some((one) => !one.url);
export const count = () => attached.length;

/** The files of the message, which are then no longer being written. */
export function take() {
  const files = attached.filter((one) => one.url).map(({ name, type, url, size }) => ({ name, type, url, size }));
  clear();
  return files;
}

export function clear() {
  attached = [];
  draw();
}

async function add(files) {
  const to = await session();
  if (!to) return;
  for (const file of files) {
    const one = { name: file.name || "file", preview: file.type.startsWith("image/") ? URL.createObjectURL(file) : null };
    attached.push(one);
    draw();
    try {
      Object.assign(one, await to.upload(file));
      notify("");
    } catch (problem) {
      attached = attached.filter((other) => other !== one);
      explain(problem);
    }
    draw();
  }
}

function draw() {
  $("attached").hidden = !attached.length;
  $("attached").replaceChildren(...attached.map((one) => {
    const item = element("div", one.url ? "file" : "file sending");
    if (one.preview) item.append(Object.assign(element("img"), { src: one.preview, alt: "" }));
    const remove = element("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", t("remove", { name: one.name }));
    remove.onclick = () => { attached = attached.filter((other) => other !== one); draw(); };
    item.append(element("span", "", one.name), remove);
    return item;
  }));
  changed();
}

const files = (transfer) => [...(transfer?.files ?? [])];
$("attach").onclick = () => $("files").click();
$("files").onchange = () => { add([...$("files").files]); $("files").value = ""; };
$("text").addEventListener("paste", (event) => {
  if (!files(event.clipboardData).length) return;
  event.preventDefault();
  add(files(event.clipboardData));
});
addEventListener("dragover", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
for (const end of ["dragleave", "drop"]) addEventListener(end, () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  if (!files(event.dataTransfer).length) return;
  event.preventDefault();
  add(files(event.dataTransfer));
});

/** A file of a message: an image, or a link. The bytes are fetched with the session's token. */
export function shown(from, { name, type, url }) {
  const label = name || type;
  if (/^https?:/.test(url)) {
    return Object.assign(element("a", "", label), { href: url, target: "_blank", rel: "noopener noreferrer" });
  }
  if (!url.startsWith("/")) return element("span", "meta", label);
  if (/^image\/(png|jpeg|gif|webp|avif)$/.test(type)) {
    const image = Object.assign(element("img", "picture"), { alt: label });
    from.content(url).then((blob) => { image.src = URL.createObjectURL(blob); })
      .catch(() => image.replaceWith(element("span", "meta", label)));
    return image;
  }
  const link = element("button", "link", label);
  link.type = "button";
  link.onclick = async () => {
    try {
      const there = element("a");
      Object.assign(there, { href: URL.createObjectURL(await from.content(url)), download: label });
      there.click();
    } catch (problem) { explain(problem); }
  };
  return link;
}

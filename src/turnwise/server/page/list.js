// The list of conversations: those of this browser, or of the person who is logged in, by their dates.

import { client } from "./api.js";
import { $, element } from "./screen.js";
import { t } from "./texts.js";

const memory = {
  read(key, fallback) {
    try { return JSON.parse(localStorage.getItem(`turnwise.${key}`)) ?? fallback; } catch { return fallback; }
  },
  write(key, value) {
    try { localStorage.setItem(`turnwise.${key}`, JSON.stringify(value)); } catch { /* a private window */ }
  },
};

export class List {
  // `on.enter(session)` opens one; `isOpen(session)` says which one is.
  constructor(on) {
    this.on = on;
    this.listed = false; // the server has the list
    this.read();
    $("search").oninput = () => this.find();
    // What was begun on another device is there when the page is looked at again.
    document.addEventListener("visibilitychange", () => this.look());
    addEventListener("focus", () => this.look());
  }

  read() {
    if (!this.listed) this.sessions = memory.read("sessions", []).map((one) => this.known(one));
  }

  known({ at, ...one }) { return Object.assign(client.session(one), { at }); }

  get current() { return this.get(memory.read("current", null)); }
  set current(session) { memory.write("current", session?.id ?? null); }
  get(id) { return this.sessions.find((one) => one.id === id); }

  add(session) {
    session.at = Date.now();
    this.sessions.unshift(session);
    this.keep();
  }

  // Something was said in it: it is the first one now.
  touch(session) {
    session.at = Date.now();
    this.sessions = [session, ...this.sessions.filter((one) => one !== session)];
    this.keep();
  }

  remove(session) {
    this.sessions = this.sessions.filter((one) => one.id !== session.id);
    this.keep();
  }

  keep() {
    if (!this.listed) {
      memory.write("sessions", this.sessions.map(({ id, token, name, at }) => ({ id, token, name, at })));
    }
    this.show();
  }

  // The list follows its owner to every device.
  async load(q = "") {
    const { sessions } = await client.list({ q });
    this.listed = true;
    this.looked = Date.now();
    // One that is open stays the object that it is.
    this.sessions = sessions.map(({ id, name, created_at: at }) =>
      Object.assign(this.get(id) ?? this.known({ id }), { name, at: this.get(id)?.at ?? Date.parse(at) }));
    this.show();
  }

  look() {
    if (this.listed && !document.hidden && Date.now() - (this.looked ?? 0) > 2000) this.find();
  }

  find() {
    if (this.listed) this.load($("search").value).catch(() => {});
    else this.show();
  }

  show() {
    const part = this.listed ? "" : $("search").value.toLowerCase();
    const shown = this.sessions.filter(({ name }) => (name || "").toLowerCase().includes(part));
    $("search").hidden = this.sessions.length < 6 && !$("search").value;
    const groups = Map.groupBy?.(shown, dated) ?? grouped(shown);
    $("sessions").replaceChildren(...[...groups].map(([when, all]) => {
      const group = element("section");
      const list = element("ul");
      list.append(...all.map((session) => this.line(session)));
      group.append(element("h2", "", t(when)), list);
      return group;
    }));
    if (!shown.length && $("search").value) $("sessions").append(element("p", "meta", t("none_found")));
  }

  line(session) {
    const item = element("li");
    const button = element("button", "", session.name || t("new"));
    button.type = "button";
    button.title = session.name || "";
    button.dir = "auto";
    if (this.on.isOpen(session)) button.setAttribute("aria-current", "true");
    button.onclick = () => this.on.enter(session);
    item.append(button);
    return item;
  }
}

const DAY = 86_400_000;

function dated({ at }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (!at || at >= midnight) return "today";
  if (at >= midnight - DAY) return "yesterday";
  return at >= midnight - 7 * DAY ? "week" : "older";
}

function grouped(sessions) {
  const groups = new Map();
  for (const one of sessions) groups.set(dated(one), [...(groups.get(dated(one)) ?? []), one]);
  return groups;
}

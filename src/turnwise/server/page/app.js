// The chat page: the conversations of this browser, the unsent messages, and what a person can do.

import { about, client, useKey } from "./api.js";
import { told } from "./asks.js";
import { Conversation } from "./conversation.js";
import { List } from "./list.js";
import { $, element, explain, notify, showLink, toEnd } from "./screen.js";
import { speak, t } from "./texts.js";
import { Outbox } from "./turnwise.js";
import * as uploads from "./uploads.js";

let drafts = {};
let conversation = null;
let brand = "Turnwise";
let login = null;  // where one logs in, if the host's own login decides
const list = new List({ enter: (session) => enter(session), isOpen: ({ id }) => id === conversation?.session.id });

// Sending: a message stays in the outbox until the server has it, across reloads and restarts.

const outbox = new Outbox({
  on: {
    session: (id) => list.get(id),
    sent: () => { notify(""); conversation?.show(); },
    failed(problem, message) {
      const shown = message.session === conversation?.session.id;
      if (!problem.retryable && shown) $("text").value ||= message.text;
      if (shown && [401, 404].includes(problem.status)) gone(problem.status === 404);
      else explain(problem);
      conversation?.show();
    },
  },
});

// A message that is being edited, or changed while it waits; the field is for its new text.
let editing = null;
function edit(turn) {
  if (!editing) drafts[conversation.session.id] = $("text").value;
  editing = turn;
  $("editing").hidden = !turn;
  $("editing-text").textContent = t(turn?.waits ? "changing" : "editing");
  $("text").value = turn ? turn.text : drafts[conversation?.session.id] || "";
  grow();
  $("text").focus();
}

async function sendEdited(text) {
  const turn = editing;
  edit(null);
  if (turn.waits) return conversation.session.change(turn.n, text).catch(explain);
  const { attachments } = turn;  // they stay with the message
  return put(conversation.session, { text, replaces: turn.n, ...(attachments?.length && { attachments }) });
}

// Goes on in a new conversation, which is the same up to a turn.
async function branch(n) {
  const from = conversation.session;
  try {
    const made = await from.fork(n, `${from.name || t("new")} · ${t("branch_name")}`.slice(0, 200));
    list.add(made);
    await enter(made);
  } catch (problem) { explain(problem); }
}

function named(name) {
  conversation.session.name = name;
  list.keep();
  showTitle();
}

async function send(text) {
  // Several messages may be sent before the session of the first one is created.
  const session = await here();
  if (!session) {
    $("text").value ||= text;
    return grow();
  }
  const attachments = uploads.take();
  if (!session.name) {
    session.name = shortened(text.split("\n")[0]) || attachments[0].name;
    session.rename(session.name).catch(() => {});
    showTitle();
  }
  await put(session, attachments.length ? { text, attachments } : { text });
}

// A name of at most 60 characters, cut between words.
function shortened(line) {
  if (line.length <= 60) return line;
  const head = line.slice(0, 59);
  return `${head.slice(0, Math.max(head.lastIndexOf(" "), 30)).trimEnd()}…`;
}

async function put(session, message) {
  outbox.put(session, message);
  list.touch(session);
  conversation?.show();
  toEnd();
  await outbox.flush();
}

const answer = (answers) => put(conversation.session, { text: "", answers });

let beginning = null;
// The session that is open, or a new one.
const here = async () => conversation?.session
  ?? await (beginning ??= begin().finally(() => { beginning = null; }));

function showPending() {
  document.querySelectorAll(".pending").forEach((item) => item.remove());
  for (const message of conversation ? outbox.of(conversation.session) : []) {
    const item = element("li", "message user waiting pending");
    item.append(element("div", "bubble", told(message)), element("div", "meta", t("sending")));
    $("open").append(item);
  }
  $("welcome").hidden = $("messages").childElementCount + $("open").childElementCount > 0;
}

// Sessions

async function begin() {
  let session;
  try {
    session = await client.create({ metadata: { language: navigator.language } });
  } catch (problem) {
    if (problem.status !== 401) { explain(problem); return null; }
    if (login !== null) { askLogin("logged_out"); return null; }
    const key = await askKey();
    useKey(key);
    return key ? begin() : null;
  }
  list.add(session);
  // Not awaited: messages sent meanwhile continue in order. If another conversation is open now, it stays open.
  if (!conversation) {
    drafts[session.id] = $("text").value;  // the next message may be half written
    enter(session);
  }
  return session;
}

// Each conversation has an address of its own: it can be reloaded, kept as a bookmark, and gone back to.
function address(session) {
  const here = session ? `#${encodeURIComponent(session.id)}` : location.pathname + location.search;
  if (location.hash === (session ? here : "")) return;
  history[self === top ? "pushState" : "replaceState"](null, "", here);
}

function fromAddress() {
  let id = "";
  try { id = decodeURIComponent(location.hash.slice(1)); } catch { /* not one of ours */ }
  const session = list.get(id) ?? (id && list.listed ? list.known({ id }) : null);
  if (session) return enter(session);
  fresh();
  if (id) notify(t("elsewhere"));
}

async function enter(session) {
  conversation?.close();
  address(session);
  if (conversation && !editing) drafts[conversation.session.id] = $("text").value;
  conversation = new Conversation(session, { arrived: (key) => outbox.settle(key), connected: () => outbox.flush(), gone, again: send, answer, edit, branch, named, changed: showPending });
  editing = null;
  $("editing").hidden = true;
  list.current = session;
  $("text").value = drafts[session.id] || "";
  if (!beginning) uploads.clear();
  grow();
  notify("");
  blank();
  document.body.classList.remove("sidebar-open");
  const mine = conversation;
  try {
    await mine.load();
  } catch (problem) {
    if (mine !== conversation) return;
    if (problem.status === 404 || problem.status === 401) return forget(session, problem.status === 404);
    explain(problem);
    showLink("lost");
    setTimeout(() => { if (mine === conversation) enter(session); }, 1500);
  }
}

function blank() {
  $("messages").replaceChildren();
  $("open").replaceChildren();
  $("earlier").hidden = true;
  $("stop").hidden = true;
  $("welcome").hidden = conversation !== null;
  $("actions").hidden = $("more").hidden = conversation === null;
  showLink("open");
  showTitle();
  list.show();
}

function fresh() {
  conversation?.close();
  address(null);
  conversation = null;
  editing = null;
  $("editing").hidden = true;
  list.current = null;
  document.body.classList.remove("sidebar-open");
  notify("");
  blank();
  if (!matchMedia("(pointer: coarse)").matches) $("text").focus(); // a phone's keyboard would cover the page
}

// A host's login has ended, or has not begun: the host says where it is.
function askLogin(why) {
  notify(t(why), login ? [t("log_in"), () => { (self === top ? location : open("", "_blank").location).href = login; }] : [t("new"), fresh]);
}

// What was written stays in the field, for the new conversation.
function gone(deleted) {
  if (login !== null) return askLogin("ended");
  notify(t(deleted ? "gone" : "refused"), [t("new"), fresh]);
}

function forget(session, deleted) {
  outbox.forget(session);
  list.remove(session);
  if (conversation?.session.id === session.id) fresh();
  if (deleted !== undefined) notify(t(deleted ? "gone" : "refused"));
}

// The screen

function showTitle() {
  const { name } = conversation?.session ?? {};
  $("title").textContent = name || t("new");
  document.title = name ? `${name} · ${brand}` : brand;
}

// Other tabs of this browser have the same sessions and the same outbox.
addEventListener("storage", () => {
  list.read();
  outbox.read();
  list.show();
});

function grow() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
  $("send").disabled = uploads.waiting() || (!field.value.trim() && (editing || !uploads.count()));
}

function ask(text, yes) {
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm").returnValue = "";
  $("confirm").showModal();
  return new Promise((done) => {
    $("confirm").onclose = () => done($("confirm").returnValue === "yes");
  });
}

function askName(name) {
  $("name").value = name ?? "";
  $("name-dialog").returnValue = "";
  $("name-dialog").showModal();
  $("name").select();
  return new Promise((done) => {
    $("name-dialog").onclose = () => done($("name-dialog").returnValue === "yes" ? $("name").value.trim() : null);
  });
}

function askKey() {
  $("key-dialog").returnValue = "";
  $("key-dialog").showModal();
  return new Promise((done) => {
    $("key-dialog").onclose = () => done($("key-dialog").returnValue === "yes" ? $("key").value.trim() : null);
  });
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (uploads.waiting() || (!text.trim() && (editing || !uploads.count()))) return;
  if (editing) return sendEdited(text);
  $("text").value = "";
  grow();
  send(text);
};
$("cancel-edit").onclick = () => edit(null);
$("text").oninput = grow;
addEventListener("resize", grow);
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
};
document.onkeydown = (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if ($("actions").classList.contains("open")) { unfold(false); $("more").focus(); }
  else if (document.body.classList.contains("sidebar-open")) document.body.classList.remove("sidebar-open");
  else if (editing) edit(null);
  else conversation?.stop();
};
$("stop").onclick = () => conversation?.stop();
$("new").onclick = $("new-here").onclick = fresh;
$("earlier").onclick = () => conversation.earlier().catch(explain);
$("latest").onclick = toEnd;
$("open-sidebar").onclick = () => { document.body.classList.add("sidebar-open"); $("close-sidebar").focus(); };
$("close-sidebar").onclick = $("shade").onclick = () => document.body.classList.remove("sidebar-open");
addEventListener("popstate", fromAddress);
// Earlier messages come as one scrolls towards them.
new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting) conversation?.earlier().catch(explain);
}, { root: $("scroller"), rootMargin: "300px 0px 0px" }).observe($("earlier"));
// On a phone, what can be done with a conversation folds into a menu.
function unfold(open) {
  $("actions").classList.toggle("open", open);
  $("more").setAttribute("aria-expanded", `${open}`);
}
$("more").onclick = (event) => { event.stopPropagation(); unfold(!$("actions").classList.contains("open")); };
document.addEventListener("click", () => unfold(false));
$("theme").onclick = () => globalThis.nextTheme();
$("rename").onclick = async () => {
  const { session } = conversation;
  const name = await askName(session.name);
  if (name) session.rename(name).then(() => { session.name = name; list.keep(); showTitle(); }, explain);
};
$("save").onclick = () => conversation.save().catch(explain);
$("reset").onclick = async () => {
  if (await ask(t("empty_sure"), t("empty_yes"))) conversation.session.reset().catch(explain);
};
$("delete").onclick = async () => {
  if (!(await ask(t("delete_sure"), t("delete_yes")))) return;
  const { session } = conversation;
  try {
    await session.remove();
  } catch (problem) {
    if (problem.status !== 404) return explain(problem);
  }
  forget(session);
};

function begun({ ideas = [], title, greeting, texts, listed, login: there = null }) {
  login = there;
  speak(texts);
  brand = title ?? brand;
  $("brand").textContent = brand;
  if (greeting) {
    $("greeting").textContent = greeting;
    $("about").hidden = true;
  }
  $("kept").textContent = t(listed ? "kept_there" : "kept_here");
  $("ideas").append(...ideas.map((idea) => {
    const button = element("button", "", idea);
    button.type = "button";
    button.dir = "auto";
    button.onclick = () => send(idea);
    return button;
  }));
  return listed ? list.load() : null;
}

uploads.start(here, grow);
about().catch(() => ({})).then(begun).catch(explain).then(() => {
  if (location.hash) fromAddress();
  else if (list.current) enter(list.current);
  else fresh();
  grow();
});

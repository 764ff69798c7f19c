// The chat page: the conversations of this browser, the unsent messages, and what a person can do.

import * as api from "./api.js";
import { told } from "./asks.js";
import { Conversation } from "./conversation.js";
import { $, element, explain, notify, showLink, toEnd } from "./screen.js";
import * as uploads from "./uploads.js";

// What this browser remembers: its sessions, which one is open, and the unsent messages.

const memory = {
  read(key, fallback) {
    try { return JSON.parse(localStorage.getItem(`turnwise.${key}`)) ?? fallback; } catch { return fallback; }
  },
  write(key, value) {
    try { localStorage.setItem(`turnwise.${key}`, JSON.stringify(value)); } catch { /* private window */ }
  },
};
let sessions = memory.read("sessions", []);
let outbox = memory.read("outbox", []);
let drafts = {};
let key = null;
let conversation = null;

const remember = () => { memory.write("sessions", sessions); showSessions(); };

// Sending: a message stays in the outbox until the server has it, across reloads and restarts.

const pending = () => outbox.filter((message) => message.session === conversation?.session.id);

function settle(sentKey) {
  outbox = outbox.filter((message) => message.key !== sentKey);
  memory.write("outbox", outbox);
}

// A message that is being edited, or changed while it waits; the field is for its new text.
let editing = null;
function edit(turn) {
  if (!editing) drafts[conversation.session.id] = $("text").value;
  editing = turn;
  $("editing").hidden = !turn;
  $("editing-text").textContent = turn?.waits ? "Changing a message that waits."
    : "Editing: the new message takes the place of the old one and of all behind it.";
  $("text").value = turn ? turn.text : drafts[conversation?.session.id] || "";
  grow();
  $("text").focus();
}

async function sendEdited(text) {
  const turn = editing;
  edit(null);
  if (turn.waits) return api.change(conversation.session, turn.n, text).catch(explain);
  put(conversation.session, { text, replaces: turn.n });
  conversation.show();
  toEnd();
  return flush();
}

// Goes on in a new conversation, which is the same up to a turn.
async function branch(n) {
  const from = conversation.session;
  try {
    const made = await api.fork(from, n, `${from.name || "Conversation"} · branch`.slice(0, 200));
    const session = { id: made.id, token: made.token, name: made.name };
    sessions.unshift(session);
    remember();
    await enter(session);
  } catch (problem) { explain(problem); }
}

function named(name) {
  conversation.session.name = name;
  remember();
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
  put(session, attachments.length ? { text, attachments } : { text });
  if (!session.name) {
    session.name = text.split("\n")[0].slice(0, 60) || attachments[0].name;
    api.rename(session, session.name).catch(() => {});
    remember();
    showTitle();
  }
  conversation?.show();
  toEnd();
  await flush();
}

function put(session, message) {
  outbox.push({ session: session.id, key: crypto.randomUUID(), ...message });
  memory.write("outbox", outbox);
}

async function answer(answers) {
  put(conversation.session, { text: "", answers });
  conversation.show();
  toEnd();
  await flush();
}

let beginning = null;
// The session that is open, or a new one.
const here = async () => conversation?.session
  ?? await (beginning ??= begin().finally(() => { beginning = null; }));
let flushing = false;
async function flush() {
  if (flushing) return;
  flushing = true;
  try {
    while (outbox.length) {
      const [message] = outbox;
      const session = sessions.find((one) => one.id === message.session);
      try {
        if (session) await api.submit(session, message);
        settle(message.key);
        notify("");
      } catch (problem) {
        const shown = message.session === conversation?.session.id;
        if (!problem.retryable) {
          settle(message.key);
          if (shown) $("text").value ||= message.text;
        }
        if (shown && [401, 404].includes(problem.status)) gone(problem.status === 404);
        else explain(problem);
        if (problem.retryable) await new Promise((done) => setTimeout(done, problem.status === 429 ? 1500 : 700));
      }
      conversation?.show();
    }
  } finally { flushing = false; }
}

function showPending() {
  document.querySelectorAll(".pending").forEach((item) => item.remove());
  for (const message of pending()) {
    const item = element("li", "message user waiting pending");
    item.append(element("div", "bubble", told(message)), element("div", "meta", "Sending"));
    $("open").append(item);
  }
  $("welcome").hidden = $("messages").childElementCount + $("open").childElementCount > 0;
}

// Sessions

async function begin() {
  let made;
  try {
    made = await api.create(key);
  } catch (problem) {
    if (problem.status !== 401) { explain(problem); return null; }
    key = await askKey();
    return key ? begin() : null;
  }
  const session = { id: made.id, token: made.token, name: null };
  sessions.unshift(session);
  remember();
  // Not awaited: messages sent meanwhile continue in order. If another conversation is open now, it stays open.
  if (!conversation) {
    drafts[session.id] = $("text").value;  // the next message may be half written
    enter(session);
  }
  return session;
}

async function enter(session) {
  conversation?.close();
  if (conversation && !editing) drafts[conversation.session.id] = $("text").value;
  conversation = new Conversation(session, { arrived: settle, connected: flush, gone, again: send, answer, edit, branch, named, changed: showPending });
  editing = null;
  $("editing").hidden = true;
  memory.write("current", session.id);
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
  $("reset").hidden = $("delete").hidden = conversation === null;
  showLink("open");
  showTitle();
  showSessions();
}

function fresh() {
  conversation?.close();
  conversation = null;
  editing = null;
  $("editing").hidden = true;
  memory.write("current", null);
  document.body.classList.remove("sidebar-open");
  notify("");
  blank();
  $("text").focus();
}

// What was written stays in the field, for the new conversation.
function gone(deleted) {
  const why = deleted ? "This conversation is no longer on the server."
    : "The server does not accept this browser's key to this conversation any more.";
  notify(why, ["New conversation", fresh]);
}

function forget(session, deleted) {
  sessions = sessions.filter((one) => one.id !== session.id);
  outbox = outbox.filter((message) => message.session !== session.id);
  memory.write("outbox", outbox);
  remember();
  if (conversation?.session.id === session.id) fresh();
  if (deleted !== undefined) {
    notify(deleted ? "That conversation is no longer on the server."
      : "The server does not accept this browser's key to that conversation any more.");
  }
}

// The screen

function showSessions() {
  $("sessions").replaceChildren(...sessions.map((session) => {
    const item = element("li");
    const button = element("button", "", session.name || "New conversation");
    button.type = "button";
    button.title = session.name || "";
    button.dir = "auto";
    if (session.id === conversation?.session.id) button.setAttribute("aria-current", "true");
    button.onclick = () => enter(session);
    item.append(button);
    return item;
  }));
}

function showTitle() {
  const name = conversation?.session.name || "New conversation";
  $("title").textContent = name;
  document.title = conversation?.session.name ? `${name} · Turnwise` : "Turnwise";
}

// Other tabs of this browser have the same sessions and the same outbox.
addEventListener("storage", () => {
  sessions = memory.read("sessions", []);
  outbox = memory.read("outbox", []);
  showSessions();
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
  if (document.body.classList.contains("sidebar-open")) document.body.classList.remove("sidebar-open");
  else if (editing) edit(null);
  else conversation?.stop();
};
$("stop").onclick = () => conversation?.stop();
$("new").onclick = fresh;
$("earlier").onclick = () => conversation.earlier().catch(explain);
$("latest").onclick = toEnd;
$("open-sidebar").onclick = () => { document.body.classList.add("sidebar-open"); $("close-sidebar").focus(); };
$("close-sidebar").onclick = $("shade").onclick = () => document.body.classList.remove("sidebar-open");
$("reset").onclick = async () => {
  if (await ask("Empty this conversation? Its messages will be deleted.", "Empty")) {
    api.reset(conversation.session).catch(explain);
  }
};
$("delete").onclick = async () => {
  if (!(await ask("Delete this conversation? This cannot be undone.", "Delete"))) return;
  const { session } = conversation;
  try {
    await api.remove(session);
  } catch (problem) {
    if (problem.status !== 404) return explain(problem);
  }
  forget(session);
};
uploads.start(here, grow);
api.about().then(({ ideas }) => $("ideas").append(...ideas.map((idea) => {
  const button = element("button", "", idea);
  button.type = "button";
  button.onclick = () => send(idea);
  return button;
}))).catch(() => {});

const current = sessions.find((session) => session.id === memory.read("current", null));
if (current) enter(current);
else fresh();
grow();

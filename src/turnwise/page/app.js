// The chat page: what is on the screen, and what a person can do.

import * as api from "./api.js";

const $ = (id) => document.getElementById(id);
const TERMINAL = ["turn.completed", "turn.failed", "turn.cancelled"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// What this browser remembers: its sessions, which one is open, and what is not sent yet.

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

// The reply's text as safe HTML comes from the server; plain text stands there until it has.

class Markdown {
  constructor(session) { this.session = session; this.waiting = new Map(); this.busy = false; }

  show(target, text) {
    this.waiting.set(target, text);
    if (!this.busy) this.work();
  }

  async work() {
    this.busy = true;
    while (this.waiting.size) {
      const jobs = [...this.waiting];
      this.waiting.clear();
      try {
        const html = await api.render(this.session, jobs.map(([, text]) => text));
        const stay = atEnd();
        jobs.forEach(([target], i) => { target.innerHTML = html[i]; target.classList.remove("plain"); });
        if (stay) toEnd();
      } catch { /* the plain text stays */ }
      await new Promise((done) => setTimeout(done, 80));
    }
    this.busy = false;
  }
}

// A conversation: its history, the turns that are open, and the line that brings events.

class Conversation {
  constructor(session) {
    this.session = session;
    this.markdown = new Markdown(session);
    this.open = new Map();
    this.first = null;
    this.line = null;
    this.closed = false;
  }

  async load() {
    const [page, failed] = await Promise.all([api.messages(this.session), api.failures(this.session)]);
    if (this.closed) return;
    this.errors = new Map(failed.turns.map((turn) => [turn.n, turn.error]));
    this.open.clear();
    $("messages").replaceChildren();
    $("open").replaceChildren();
    this.prepend(page);
    for (const turn of page.open) this.begin(turn.n, turn.message, turn.status);
    this.line?.close();
    this.line = new api.Line(this.session, page.cursor, {
      onEvent: (event) => this.take(event),
      onState: (state) => { if (!this.closed) showLink(state); if (state === "open") flush(); },
      onGone: (code) => this.gone(code),
    });
    this.show();
    toEnd();
  }

  prepend({ messages, has_more }) {
    const items = messages.map((message) => this.item(message));
    messages.forEach((message, i) => {
      const error = this.errors.get(message.turn);
      if (error && message.role === "user") items[i].append(failure(error, message.text));
    });
    $("messages").prepend(...items);
    this.first = messages[0]?.seq ?? this.first;
    $("earlier").hidden = !has_more;
  }

  async earlier() {
    $("earlier").hidden = true;  // until it is known whether there are more
    const page = await api.messages(this.session, this.first);
    if (this.closed) return;
    const height = $("scroller").scrollHeight;
    this.prepend(page);
    $("scroller").scrollTop += $("scroller").scrollHeight - height;
  }

  close() {
    this.closed = true;
    this.line?.close();
  }

  gone(code) {
    if (code === 4404) {
      notify("This conversation is no longer on the server.");
    } else {
      notify("This browser's key to the conversation has expired.");
    }
    showLink("open");
  }

  // Events

  take(event) {
    const stay = atEnd();
    const turn = this.open.get(event.turn);
    if (event.type === "turn.queued") this.begin(event.turn, event.message, "queued", event.key);
    else if (event.type === "turn.started") this.start(event);
    else if (event.type === "delta") { if (turn) { turn.text += event.text; this.stream(turn); } }
    else if (event.type === "message") turn?.replies.push(event.message);
    else if (TERMINAL.includes(event.type)) this.end(event);
    else if (event.type === "session.reset" || event.type === "gap") this.load().catch(explain);
    this.show();
    if (stay) toEnd();
  }

  begin(n, message, status, sentKey) {
    if (sentKey) settle(sentKey);
    if (this.open.has(n)) return;
    const turn = { n, message, status, text: "", replies: [], item: this.item(message) };
    turn.meta = element("div", "meta");
    turn.item.append(turn.meta);
    this.open.set(n, turn);
    $("open").append(turn.item);
  }

  start({ turn: n, attempt }) {
    const turn = this.open.get(n);
    if (!turn) return;
    Object.assign(turn, { status: "running", text: "", replies: [] });
    turn.answer?.remove();
    turn.answer = element("li", "message assistant");
    turn.answer.setAttribute("aria-busy", "true");
    turn.bubble = element("div", "bubble");
    const dots = element("span", "dots");
    dots.append(element("i"), element("i"), element("i"));
    turn.bubble.append(dots, element("span", "hidden", "Answering"));
    turn.answer.append(turn.bubble);
    if (attempt > 1) turn.answer.append(element("div", "meta", "The server was interrupted and has begun again."));
    turn.item.after(turn.answer);
  }

  stream(turn) {
    if (!turn.bubble) return;
    if (!turn.drawn) {
      turn.bubble.classList.add("plain");
      turn.bubble.textContent = turn.text;
    }
    turn.drawn = true;
    this.markdown.show(turn.bubble, turn.text);
  }

  end({ type, turn: n, error }) {
    const turn = this.open.get(n);
    if (!turn) return;
    this.open.delete(n);
    this.markdown.waiting.delete(turn.bubble);
    turn.meta.remove();
    turn.item.classList.remove("waiting");
    const withdrawn = type === "turn.cancelled" && turn.status === "queued";
    turn.answer?.remove();
    turn.item.remove();
    if (withdrawn) return say("The message was withdrawn.");
    $("messages").append(turn.item);
    if (error) turn.item.append(failure(error, turn.message.text));
    for (const reply of turn.replies) {
      const item = this.item(reply);
      // What was drawn while it streamed stays until the whole text is rendered: nothing jumps.
      if (turn.replies.length === 1 && turn.drawn) item.firstChild.replaceChildren(...turn.bubble.childNodes);
      $("messages").append(item);
    }
    if (type === "turn.cancelled") say("Stopped.");
    else say(error ? error.message : turn.replies.map((reply) => reply.text).join("\n"));
  }

  // Drawing

  item(message) {
    const item = element("li", `message ${message.role}`);
    const bubble = element("div", "bubble plain", message.text);
    item.append(bubble);
    const who = element("span", "hidden", message.role === "user" ? "You said:" : "The answer:");
    item.prepend(who);
    item.prepend(bubble);
    bubble.before(who);
    for (const attachment of message.attachments) {
      const link = element("a", "", attachment.name || attachment.type);
      if (/^https?:/.test(attachment.url)) Object.assign(link, { href: attachment.url, target: "_blank", rel: "noopener noreferrer" });
      item.append(link);
    }
    if (message.role !== "user") this.markdown.show(bubble, message.text);
    if (message.partial) item.append(element("div", "meta", "Stopped"));
    return item;
  }

  show() {
    const turns = [...this.open.values()];
    turns.forEach((turn, place) => {
      const waiting = turn.status === "queued";
      turn.item.classList.toggle("waiting", waiting);
      // Drawn only when it changes: a button must not be replaced under somebody's finger.
      if (turn.place === (waiting ? place : null)) return;
      turn.place = waiting ? place : null;
      turn.meta.replaceChildren();
      if (!waiting) return;
      const ahead = place === 1 ? "1 message ahead" : `${place} messages ahead`;
      const withdraw = element("button", "", "Withdraw");
      withdraw.type = "button";
      withdraw.onclick = () => api.cancel(this.session, turn.n).catch(explain);
      turn.meta.append(element("span", "", place ? `In line, ${ahead}` : "In line"), withdraw);
    });
    $("stop").hidden = !turns.some((turn) => turn.status === "running");
    $("welcome").hidden = turns.length > 0 || $("messages").childElementCount > 0 || pending().length > 0;
    showPending();
  }

  stop() {
    const running = [...this.open.values()].find((turn) => turn.status === "running");
    if (running) api.cancel(this.session, running.n).catch(explain);
  }
}

function failure(error, text) {
  const box = element("div", "failure", error.message);
  if (error.retryable) {
    const again = element("button", "", "Ask again");
    again.type = "button";
    again.onclick = () => { again.remove(); send(text); };
    box.append(again);
  }
  return box;
}

// Sending: a message stands in the outbox until the server has it, over reloads and restarts.

const pending = () => outbox.filter((message) => message.session === conversation?.session.id);

function settle(sentKey) {
  outbox = outbox.filter((message) => message.key !== sentKey);
  memory.write("outbox", outbox);
}

async function send(text) {
  // Several messages may be sent before the first one's conversation is made.
  const session = conversation?.session
    ?? await (beginning ??= begin().finally(() => { beginning = null; }));
  if (!session) {
    $("text").value ||= text;
    return grow();
  }
  outbox.push({ session: session.id, text, key: crypto.randomUUID() });
  memory.write("outbox", outbox);
  if (!session.name) {
    session.name = text.split("\n")[0].slice(0, 60);
    api.rename(session, session.name).catch(() => {});
    remember();
    showTitle();
  }
  conversation?.show();
  toEnd();
  await flush();
}

let beginning = null;
let flushing = false;
async function flush() {
  if (flushing) return;
  flushing = true;
  try {
    while (outbox.length) {
      const [message] = outbox;
      const session = sessions.find((one) => one.id === message.session);
      try {
        if (session) await api.submit(session, message.text, message.key);
        settle(message.key);
        if (!$("notice").dataset.keep) notify("");
      } catch (problem) {
        if (!problem.retryable) {
          settle(message.key);
          if (message.session === conversation?.session.id) $("text").value ||= message.text;
        }
        explain(problem);
        if (!problem.retryable) continue;
        await new Promise((done) => setTimeout(done, problem.status === 429 ? 1500 : 700));
      }
      conversation?.show();
    }
  } finally { flushing = false; }
}

function showPending() {
  document.querySelectorAll(".pending").forEach((item) => item.remove());
  const known = new Set([...conversation.open.values()].map((turn) => turn.key));
  for (const message of pending()) {
    if (known.has(message.key)) continue;
    const item = element("li", "message user waiting pending");
    item.append(element("div", "bubble", message.text), element("div", "meta", "Sending"));
    $("open").append(item);
  }
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
  // Not awaited: what was said meanwhile goes on in its order. Who has moved on is left alone.
  if (!conversation) enter(session);
  return session;
}

async function enter(session) {
  conversation?.close();
  if (conversation) drafts[conversation.session.id] = $("text").value;
  conversation = new Conversation(session);
  memory.write("current", session.id);
  $("text").value = drafts[session.id] || "";
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
  memory.write("current", null);
  document.body.classList.remove("sidebar-open");
  notify("");
  blank();
  $("text").focus();
}

function forget(session, gone) {
  sessions = sessions.filter((one) => one.id !== session.id);
  outbox = outbox.filter((message) => message.session !== session.id);
  memory.write("outbox", outbox);
  remember();
  if (conversation?.session.id === session.id) fresh();
  if (gone !== undefined) {
    notify(gone ? "That conversation is no longer on the server." : "This browser's key to that conversation has expired.");
  }
}

// The screen

function showSessions() {
  $("sessions").replaceChildren(...sessions.map((session) => {
    const item = element("li");
    const button = element("button", "", session.name || "New conversation");
    button.type = "button";
    button.title = session.name || "";
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

function showLink(state) {
  $("link").textContent = state === "lost" ? "Reconnecting…" : "";
}

function notify(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

function explain(problem) {
  const offline = "The server cannot be reached. Your message is kept and sent as soon as it can be.";
  notify(problem.status === 0 ? offline : problem.message);
}

function say(text) { $("spoken").textContent = text; }

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  return scrollHeight - scrollTop - clientHeight < 80;
}

function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
  $("latest").hidden = true;
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
  $("send").disabled = !field.value.trim();
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
  if (!text.trim()) return;
  $("text").value = "";
  grow();
  send(text);
};
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
  else conversation?.stop();
};
$("stop").onclick = () => conversation?.stop();
$("new").onclick = fresh;
$("earlier").onclick = () => conversation.earlier().catch(explain);
$("latest").onclick = toEnd;
$("scroller").onscroll = () => { $("latest").hidden = atEnd(); };
$("open-sidebar").onclick = () => { document.body.classList.add("sidebar-open"); $("close-sidebar").focus(); };
$("close-sidebar").onclick = $("shade").onclick = () => document.body.classList.remove("sidebar-open");
$("reset").onclick = async () => {
  if (await ask("Empty this conversation? Its messages will be gone.", "Empty")) {
    api.reset(conversation.session).catch(explain);
  }
};
$("delete").onclick = async () => {
  if (!(await ask("Delete this conversation for good?", "Delete"))) return;
  const { session } = conversation;
  try {
    await api.remove(session);
  } catch (problem) {
    if (problem.status !== 404) return explain(problem);
  }
  forget(session);
};
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

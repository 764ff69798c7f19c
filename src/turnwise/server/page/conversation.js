// A conversation on the screen: its history, its open turns, and the connection that delivers events.

import { render } from "./api.js";
import { askFor, told } from "./asks.js";
import { Growing } from "./growing.js";
import { $, atEnd, copy, element, explain, keepSelection, notify, say, showLink, toEnd, whenNotSelected } from "./screen.js";
import { Steps } from "./steps.js";
import { t, when } from "./texts.js";
import { copyButtons, judging, tools } from "./tools.js";
import { shown } from "./uploads.js";

// Why an answer is incomplete.
const ENDED = ["length", "filtered", "cut", "error"];
const TERMINAL = ["turn.completed", "turn.failed", "turn.cancelled"];
const ofTurn = (item, n) => { item.dataset.turn = n; return item; };

// The server renders the reply's text as safe HTML. Plain text is shown until the HTML arrives, or if
// rendering fails.

class Markdown {
  constructor(session) { this.session = session; this.waiting = []; this.busy = false; }

  // Call `use` with the HTML of a text; if the server cannot render it, the text stays plain.
  render(text, use) {
    this.waiting.push({ text, use });
    if (!this.busy) this.work();
  }

  show(target, text) {
    this.render(text, (html) => {
      if (drawn(target) === bare(html)) return;
      whenNotSelected(target, () => {
        target.innerHTML = html;
        target.classList.remove("plain");
        copyButtons(target);
      });
    });
  }

  async work() {
    this.busy = true;
    while (this.waiting.length) {
      const jobs = this.waiting.splice(0, 100);
      try {
        const html = await render(this.session, jobs.map(({ text }) => text));
        jobs.forEach(({ use }, i) => use(html[i]));
      } catch { /* plain text is readable too */ }
      await new Promise((done) => setTimeout(done, 80));
    }
    this.busy = false;
  }
}

// Markup for comparison: the blocks that streamed in are mostly the same in the whole text.
function bare(html) {
  const made = document.createElement("template");
  made.innerHTML = html;
  return made.innerHTML.replace(/\s+/g, "");
}

function drawn(target) {
  const blocks = [...target.querySelectorAll(":scope > .block")];
  if (!blocks.length || blocks.some((block) => block.matches(".plain:not(:empty)"))) return null;
  return bare(blocks.map((block) => block.innerHTML).join(""));
}

export class Conversation {
  // `on` is notified: arrived(key), connected() and gone(deleted) by the connection, again(text) if a person
  // asks again, answer(answers) if one answers, edit(turn) and branch(n) if one wants to, named(name) if the
  // session has another name, changed() after drawing.
  constructor(session, on) {
    this.session = session;
    this.on = on;
    this.markdown = new Markdown(session);
    this.open = new Map();
    this.asks = new Set();  // those that wait for an answer
    this.first = null;
    this.line = null;
    this.closed = false;
  }

  async load() {
    const [page, failed] = await Promise.all([this.session.messages(), this.session.failures()]);
    if (this.closed) return;
    this.errors = new Map(failed.turns.map((turn) => [turn.n, turn.error]));
    this.open.clear();
    this.asks = new Set(page.asks);
    $("messages").replaceChildren();
    $("open").replaceChildren();
    this.prepend(page);
    for (const turn of page.open) this.begin(turn.n, turn.message, turn.status);
    this.line?.close();
    this.line = this.session.follow(page.cursor, {
      onEvent: (event) => this.take(event),
      onState: (state) => { if (!this.closed) showLink(state); if (state === "open") this.on.connected(); },
      onGone: (code) => { showLink("open"); this.on.gone(code === 4404); },
    });
    this.show();
    toEnd();
  }

  prepend({ messages, has_more }) {
    const items = messages.flatMap((message, place) => {
      const error = this.errors.get(message.turn);
      const item = this.item(message, null, error);
      if (error && message.role === "user") item.append(this.failure(error, message.text));
      this.offer(item, message, messages[place + 1]?.turn !== message.turn);
      return message.steps ? [item, ofTurn(this.steps(new Steps(message.steps)), message.turn)] : [item];
    });
    $("messages").prepend(...items);
    this.first = messages[0]?.seq ?? this.first;
    $("earlier").hidden = !has_more;
  }

  async earlier() {
    $("earlier").hidden = true;  // until it is known whether there are more
    const page = await this.session.messages(this.first);
    if (this.closed) return;
    const height = $("scroller").scrollHeight;
    this.prepend(page);
    $("scroller").scrollTop += $("scroller").scrollHeight - height;
  }

  close() {
    this.closed = true;
    this.line?.close();
  }

  // Events

  take(event) {
    const stay = atEnd();
    const turn = this.open.get(event.turn);
    if (event.type === "turn.queued") this.begin(event.turn, event.message, "queued", event.key);
    else if (event.type === "turn.started") this.start(event);
    else if (event.type === "message.started") this.part(turn, event.index);
    else if (event.type === "delta") this.part(turn, event.index ?? 0)?.growing.add(event.text);
    else if (event.type === "step") this.step(turn, event.step);
    else if (event.type === "step.delta") turn?.steps?.say(event.step, event.text);
    else if (event.type === "message") turn?.replies.push(event.message);
    else if (event.type === "ask") this.asks.add(event.ask.id);
    else if (event.type === "ask.closed") this.closeAsk(event.ask.id);
    else if (TERMINAL.includes(event.type)) this.end(event);
    else if (event.type === "turn.changed") this.reword(turn, event.message);
    else if (event.type === "turn.merged") this.drop(turn);
    else if (event.type === "history.cut") this.cut(event.turns);
    else if (event.type === "session.changed" && event.name !== undefined) this.on.named(event.name);
    else if (event.type === "session.reset" || event.type === "gap") this.load().catch(explain);
    this.show();
    if (stay) toEnd();
  }

  begin(n, message, status, sentKey) {
    if (sentKey) this.on.arrived(sentKey);
    if (this.open.has(n)) return;
    // What the bot says by itself has no message of a person.
    const item = ofTurn(message ? this.item(message) : element("li", "unasked"), n);
    const turn = { n, message, status, replies: [], item };
    turn.meta = element("div", "meta");
    if (message) turn.item.append(turn.meta);
    this.open.set(n, turn);
    $("open").append(turn.item);
  }

  // A message that waits has another text.
  reword(turn, message) {
    if (!turn?.message) return;
    turn.message = message;
    turn.item.querySelector(".bubble").textContent = told(message);
  }

  // A turn that has no place of its own any more.
  drop(turn) {
    if (!turn) return;
    this.open.delete(turn.n);
    turn.item.remove();
    turn.answer?.remove();
  }

  // These turns were taken back.
  cut([first, last]) {
    for (const item of document.querySelectorAll("#messages [data-turn]")) {
      if (item.dataset.turn >= first && item.dataset.turn <= last) item.remove();
    }
  }

  // What can be done with a message; with the last one of a turn also what concerns its answer.
  offer(item, message, last) {
    const n = message.turn;
    const all = [];
    if (message.role === "user" && !message.answers) {
      all.push(["edit", t("edit"), () => this.on.edit({ n, text: message.text, attachments: message.attachments })]);
    }
    if (message.text) all.push(["copy", t("copy"), (button) => copy(message.text, button)]);
    if (message.role === "assistant") all.push(...judging(this.session, message));
    if (last) {
      all.push(["again", t("again"), () => this.session.again(n).catch(explain)]);
      all.push(["branch", t("branch"), () => this.on.branch(n)]);
    }
    if (all.length) item.append(tools(all, when(message.created_at)));
  }

  start({ turn: n, attempt }) {
    const turn = this.open.get(n);
    if (!turn) return;
    Object.assign(turn, { status: "running", replies: [], parts: new Map(), steps: new Steps() });
    turn.answer?.remove();
    turn.answer = ofTurn(element("li", "message assistant"), n);
    turn.answer.setAttribute("aria-busy", "true");
    turn.busy = element("div", "busy");
    const dots = element("span", "dots");
    dots.append(element("i"), element("i"), element("i"));
    turn.busy.append(dots, element("span", "hidden", t("answering")));
    turn.answer.append(turn.busy);
    if (attempt > 1) turn.answer.append(element("div", "meta", t("restarted")));
    turn.item.after(turn.answer);
  }

  // A message of the running answer, by its place.
  part(turn, place) {
    if (!turn?.parts) return null;
    let part = turn.parts.get(place);
    if (!part) {
      const bubble = element("div", "bubble");
      part = { bubble, growing: new Growing(bubble, this.markdown) };
      turn.parts.set(place, part);
      turn.busy.before(bubble);
    }
    turn.busy.hidden = true;
    return part;
  }

  step(turn, step) {
    if (!turn?.steps) return;
    turn.steps.take(step);
    if (!turn.steps.box.isConnected) turn.answer.prepend(turn.steps.box);
    turn.busy.hidden = step.status === "running";
  }

  closeAsk(id) {
    this.asks.delete(id);
    document.querySelector(`[data-ask="${CSS.escape(id)}"]`)?.remove();
  }

  end({ type, turn: n, error }) {
    const turn = this.open.get(n);
    if (!turn) return;
    this.open.delete(n);
    turn.meta.remove();
    turn.item.classList.remove("waiting");
    const withdrawn = type === "turn.cancelled" && turn.status === "queued";
    if (withdrawn) {
      turn.item.remove();
      return say(t("withdrawn"));
    }
    if (error && turn.message) turn.item.append(this.failure(error, turn.message.text));
    if (turn.message) this.offer(turn.item, { ...turn.message, turn: n }, !turn.replies.length);
    turn.parts?.forEach(({ growing }) => growing.finish());
    keepSelection(() => {
      if (turn.message) $("messages").append(turn.item);
      else turn.item.remove();
      if (turn.steps?.drawn.size) $("messages").append(ofTurn(this.steps(turn.steps), n));
      turn.replies.forEach((reply, place) => {
        // What was drawn while streaming stays until the whole text is rendered, so that nothing jumps.
        const part = turn.parts?.get(place);
        const item = this.item(reply, part?.growing.tail ? part.bubble : null, error);
        this.offer(item, reply, place === turn.replies.length - 1);
        $("messages").append(item);
      });
      turn.answer?.remove();
    });
    if (type === "turn.cancelled") say(t("stopped"));
    else say(error ? error.message : turn.replies.map((reply) => reply.text).join("\n"));
  }

  // Drawing

  sources(sources) {
    const box = element("div", "sources");
    box.append(element("span", "", t("sources")), ...sources.filter(({ url }) => /^https?:/.test(url)).map(({ url, title }) =>
      Object.assign(element("a", "", title || url), { href: url, target: "_blank", rel: "noopener noreferrer", dir: "auto" })));
    return box;
  }

  // The whole conversation as a file for the person.
  async save() {
    const every = [];
    for (let before, more = true; more;) {
      const page = await this.session.messages(before);
      every.unshift(...page.messages);
      before = page.messages[0]?.seq;
      more = page.has_more && before !== undefined;
    }
    const text = every.map((one) => `## ${t(one.role === "user" ? "you" : "answer")} ${when(one.created_at)}\n\n${told(one)}\n`);
    const file = new Blob([`# ${this.session.name || t("new")}\n\n${text.join("\n")}`], { type: "text/markdown" });
    const link = Object.assign(element("a"), { href: URL.createObjectURL(file), download: `${this.session.name || "conversation"}.md` });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  steps(steps) {
    const item = element("li", "message assistant");
    item.append(steps.box);
    return item;
  }

  item(message, drawn = null, failed = null) {
    const item = ofTurn(element("li", `message ${message.role}`), message.turn);
    const who = element("span", "hidden", t(message.role === "user" ? "you" : "answer"));
    const bubble = drawn ?? element("div", "bubble plain", told(message));
    bubble.dir = "auto";
    item.append(who, bubble);
    for (const attachment of message.attachments) item.append(shown(this.session, attachment));
    bubble.hidden = !message.text && !message.answers && message.attachments.length > 0;
    if (message.role !== "user") this.markdown.show(bubble, message.text);
    const ended = message.partial ? (failed ? "unfinished" : "stopped") : ENDED.find((one) => one === message.metadata.ended);
    if (ended) item.append(element("div", "meta", t(ended)));
    const sources = message.metadata.sources ?? [];
    if (Array.isArray(sources) && sources.length) item.append(this.sources(sources));
    if (message.ask && this.asks.has(message.ask.id)) {
      item.append(askFor(message.ask, (value) => this.on.answer([{ ask: message.ask.id, value }])));
    }
    return item;
  }

  show() {
    const turns = [...this.open.values()];
    turns.forEach((turn, place) => {
      const waiting = turn.status === "queued";
      turn.item.classList.toggle("waiting", waiting);
      // Drawn only when it changes: a button must not be replaced while somebody presses it.
      if (turn.place === (waiting ? place : null)) return;
      turn.place = waiting ? place : null;
      turn.meta.replaceChildren();
      if (!waiting) return;
      const ahead = place === 1 ? t("one_ahead") : t("ahead", { n: place });
      const withdraw = element("button", "", t("withdraw"));
      withdraw.type = "button";
      withdraw.onclick = () => this.session.cancel(turn.n).catch(explain);
      const change = element("button", "", t("change"));
      change.type = "button";
      change.onclick = () => this.on.edit({ n: turn.n, text: turn.message.text, waits: true });
      turn.meta.append(element("span", "", place ? ahead : t("waiting")), change, withdraw);
    });
    $("stop").hidden = !turns.some((turn) => turn.status === "running");
    this.on.changed();
  }

  stop() {
    const running = [...this.open.values()].find((turn) => turn.status === "running");
    if (running) this.session.cancel(running.n).catch(explain);
  }

  failure(error, text) {
    const box = element("div", "failure", error.message);
    if (error.retryable && text) {
      const again = element("button", "", t("ask_again"));
      again.type = "button";
      again.onclick = () => { again.remove(); this.on.again(text); };
      box.append(again);
    }
    return box;
  }
}

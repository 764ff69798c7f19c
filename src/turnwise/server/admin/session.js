// One session: read, followed as it goes on, stopped, saved, emptied, deleted.

import { $, element, list } from "./tables.js";

const words = (message) => message.text || (message.answers ?? []).map(({ value }) => JSON.stringify(value)).join(", ");
const moment = (stamp) => new Date(stamp).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

export class SessionView {
  constructor(client, { closed }) {
    this.client = client;
    this.box = $("session");
    this.lines = document.querySelector("#transcript ol");
    this.box.addEventListener("close", () => { this.leave(); closed(); });
    $("session-close").onclick = () => this.box.close();
    $("session-earlier").onclick = () => this.attempt(() => this.earlier());
    $("session-stop").onclick = () => this.attempt(() => this.session.stop());
    $("session-export").onclick = () => this.attempt(() => this.save());
    $("session-reset").onclick = () => this.sure("Empty this session? Its messages are deleted.", "Empty it", () => this.session.reset());
    $("session-delete").onclick = () => this.sure("Delete this session with all its data?", "Delete it", async () => {
      await this.session.remove();
      this.box.close();
    });
  }

  async open(id) {
    this.leave();
    this.session = this.client.session({ id });
    $("session-title").textContent = id;
    $("session-id").textContent = "";
    this.lines.replaceChildren();
    this.problem("");
    if (!this.box.open) this.box.showModal();
    await this.attempt(() => this.load());
  }

  close() { if (this.box.open) this.box.close(); }

  leave() {
    this.line?.close();
    this.line = this.session = null;
  }

  async load() {
    const mine = this.session;
    const [about, page, last] = await Promise.all([mine.call("GET", ""), mine.messages(), mine.call("GET", "/turns?limit=100")]);
    if (mine !== this.session) return;
    this.turns = new Map(last.turns.map((turn) => [turn.n, turn]));
    this.about(about);
    this.running = new Map();
    this.lines.replaceChildren(...this.items(page.messages));
    this.first = page.messages[0]?.seq;
    $("session-earlier").hidden = !page.has_more;
    for (const turn of page.open) this.begin(turn.n, turn.message);
    this.line?.close();
    this.line = mine.follow(page.cursor, {
      onEvent: (event) => this.take(event),
      onGone: () => this.problem("This session does not exist any more."),
    });
    this.toEnd();
  }

  about(session) {
    const { id, name, status, metadata, private: hidden, ...rest } = session;
    $("session-title").textContent = name || id;
    $("session-id").textContent = id;
    this.state(status);
    const facts = Object.entries(rest).map(([key, value]) => [key.replaceAll("_", " "), key.endsWith("_at") && value ? moment(value) : typeof value === "object" ? JSON.stringify(value) : `${value}`]);
    for (const [key, value] of [["metadata", metadata], ["private", hidden]]) {
      if (value && Object.keys(value).length) facts.push([key, JSON.stringify(value)]);
    }
    list($("session-facts"), facts);
  }

  state(status) {
    $("session-state").textContent = status;
    $("session-state").className = `state ${status}`;
    $("session-stop").disabled = status === "idle";
  }

  items(messages) { return messages.flatMap((message) => this.item(message)); }

  item(message, turn = message.turn) {
    const line = element("li", message.role);
    line.dataset.turn = turn;
    line.append(element("div", "who", `${message.role}, turn ${turn}, ${message.created_at ? moment(message.created_at) : "waits"}`));
    line.append(Object.assign(element("div", "words", words(message)), { dir: "auto" }));
    for (const file of message.attachments ?? []) line.append(element("div", "who", `${file.name ?? file.url} (${file.type ?? "file"})`));
    for (const step of message.steps ?? []) line.append(this.step(step));
    const { error, delivery = [] } = message.role === "user" && this.turns.get(turn) || {};
    if (error) line.append(element("div", "bad", `${error.code}: ${error.message}`));
    for (const one of delivery.filter(({ state }) => state !== "sent")) line.append(element("div", "bad", `not delivered, ${one.state}: ${one.why}`));
    return line;
  }

  step(step) {
    const box = element("details", "step");
    box.dataset.step = step.id;
    box.append(element("summary", "", `${step.kind} ${step.name}: ${step.error?.message ?? step.status}`));
    if (step.text) box.append(element("pre", "", step.text));
    for (const [name, value] of [["input", step.input], ["output", step.output]]) {
      if (value !== undefined) box.append(element("pre", "", `${name}: ${typeof value === "string" ? value : JSON.stringify(value, null, 2)}`));
    }
    return box;
  }

  begin(n, message) {
    if (this.running.has(n)) return;
    const question = message && this.item(message, n);
    if (question) this.lines.append(question);
    this.running.set(n, { question });
  }

  take(event) {
    const { scrollHeight, scrollTop, clientHeight } = $("transcript");
    const stay = scrollHeight - scrollTop - clientHeight < 60;
    const { type, turn } = event;
    if (type === "turn.queued") this.begin(turn, event.message);
    else if (type === "turn.started") this.start(turn, event.attempt);
    else if (type === "delta") this.words(turn)?.append(event.text);
    else if (type === "message.started" && event.index) this.words(turn)?.append("\n\n");
    else if (type === "step") this.steps(turn, event.step);
    else if (type.startsWith("turn.") && type !== "turn.changed") return this.ended();
    else if (["session.reset", "session.changed", "history.cut", "gap", "turn.changed"].includes(type)) return this.ended();
    if (stay) this.toEnd();
  }

  start(turn, attempt) {
    this.state("running");
    const { question, line: before } = this.running.get(turn) ?? {};
    before?.remove();
    const line = element("li", "assistant running");
    line.append(element("div", "who", `assistant, turn ${turn}, attempt ${attempt}, answering`), element("div", "words"));
    this.running.set(turn, { question, line });
    if (question) question.after(line);
    else this.lines.append(line);
  }

  words(turn) { return this.running.get(turn)?.line?.querySelector(".words"); }

  steps(turn, step) {
    const { line } = this.running.get(turn) ?? {};
    const before = line?.querySelector(`[data-step="${CSS.escape(step.id)}"]`);
    if (before) before.replaceWith(this.step(step));
    else line?.append(this.step(step));
  }

  // What has ended is read anew, as it is kept; several ends at once are one reading.
  ended() {
    clearTimeout(this.soon);
    const mine = this.session;
    this.soon = setTimeout(() => { if (mine && mine === this.session) this.attempt(() => this.load()); }, 50);
  }

  async earlier() {
    const page = await this.session.messages(this.first);
    const { scrollHeight } = $("transcript");
    this.lines.prepend(...this.items(page.messages));
    this.first = page.messages[0]?.seq ?? this.first;
    $("session-earlier").hidden = !page.has_more;
    $("transcript").scrollTop += $("transcript").scrollHeight - scrollHeight;
  }

  // The whole of it as JSON.
  async save() {
    const { session } = this;
    const messages = [];
    for (let before, more = true; more;) {
      const page = await session.messages(before);
      messages.unshift(...page.messages);
      before = page.messages[0]?.seq;
      more = page.has_more && before !== undefined;
    }
    const turns = [];
    for (let after = 0, more = true; more;) {
      const page = await session.call("GET", `/turns?after=${after}&limit=200`);
      turns.push(...page.turns);
      after = page.turns.at(-1)?.n;
      more = page.has_more && after !== undefined;
    }
    const text = JSON.stringify({ ...await session.call("GET", ""), messages, turns }, null, 2);
    const link = Object.assign(element("a"), { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `${session.id.replaceAll(/[^\w.-]+/g, "_")}.json` });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  sure(text, yes, act) {
    $("sure-text").textContent = text;
    $("sure-yes").textContent = yes;
    $("sure").returnValue = "";
    $("sure").onclose = () => { if ($("sure").returnValue === "yes") this.attempt(act); };
    $("sure").showModal();
  }

  async attempt(act) {
    this.problem("");
    try { await act(); } catch (problem) { this.problem(problem.status === 404 ? "This session does not exist." : problem.message); }
  }

  problem(text) {
    $("session-problem").hidden = !text;
    $("session-problem").textContent = text;
  }

  toEnd() { $("transcript").scrollTop = $("transcript").scrollHeight; }
}

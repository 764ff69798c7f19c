// Turnwise's client: sessions, messages that are sent once, and a line that resumes by itself.
//
//   const client = new Client("https://example.com/chat");
//   const session = await client.create();
//   const turn = await session.ask("Hello");
//   console.log(turn.reply.text);
//
// An ES module without dependencies, for browsers and Node.

/** What went wrong, in words a person can read. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || "The server could not be reached.");
    this.name = "Problem";
    this.status = status;
    this.code = body?.code || "unreachable";
    this.retryable = status === 0 || body?.retryable === true;
  }
}

/** A server, below whose address the session routes are. */
export class Client {
  #root; #auth; #fetch;

  /** `auth` is a key or a login's token, or a function that returns one, or null if cookies decide. */
  constructor(root = "", { auth = null, fetch = globalThis.fetch } = {}) {
    this.#root = new URL(`${root}`.replace(/\/?$/, "/"), globalThis.document?.baseURI);
    this.#auth = typeof auth === "function" ? auth : () => auth;
    this.#fetch = (...request) => fetch(...request);
  }

  /** The address of a route. */
  url(path) { return new URL(path.replace(/^\//, ""), this.#root); }

  async token(own) { return own ?? await this.#auth(); }

  async send(method, path, { token, body, headers, json = true } = {}) {
    const how = { method, headers: { ...headers }, cache: "no-store" };
    const bearer = await this.token(token);
    if (bearer) how.headers.Authorization = `Bearer ${bearer}`;
    if (body !== undefined) {
      if (json) how.headers["Content-Type"] = "application/json";
      how.body = json ? JSON.stringify(body) : body;
    }
    let response;
    try {
      response = await this.#fetch(this.url(path), how);
    } catch {
      throw new Problem(0);
    }
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
    return response;
  }

  async call(method, path, more) {
    const response = await this.send(method, path, more);
    return response.status === 204 ? null : response.json();
  }

  /** A new session. */
  async create(body = {}) { return this.session(await this.call("POST", "sessions", { body })); }

  /** A session that there is, by its id, with its own token unless a login decides. */
  session({ id, token = null, name = null }) { return new Session(this, id, token, name); }

  /** The caller's sessions, the last used first. */
  list({ before, q, limit = 50 } = {}) {
    const asked = new URLSearchParams({ limit, ...(before && { before }), ...(q && { q }) });
    return this.call("GET", `sessions?${asked}`);
  }
}

/** A conversation. */
export class Session {
  #client;

  constructor(client, id, token, name) {
    this.#client = client;
    Object.assign(this, { id, token, name });
  }

  get client() { return this.#client; }
  path(rest = "") { return `sessions/${encodeURIComponent(this.id)}${rest}`; }
  call(method, rest, more = {}) { return this.#client.call(method, this.path(rest), { token: this.token, ...more }); }
  bearer() { return this.#client.token(this.token); }
  url(rest) { return this.#client.url(this.path(rest)); }

  /** Submit a message; the same key is one turn, however often the request is repeated. */
  submit({ key = crypto.randomUUID(), ...message }, headers = {}) {
    return this.call("POST", "/turns", { body: message, headers: { "Idempotency-Key": key, ...headers } });
  }

  /** A message's turn, once it is answered, or has failed. The request is repeated until the server has it. */
  async ask(text, message = {}) {
    const asked = { text, key: crypto.randomUUID(), ...message };
    for (let tries = 0; ; tries++) {
      try {
        let turn = await this.submit(asked, { Prefer: "wait=20" });
        while (["queued", "running"].includes(turn.status)) turn = await this.turn(turn.n, 20);
        return turn;
      } catch (problem) {
        if (!problem.retryable) throw problem;
        await pause(tries);
      }
    }
  }

  turn(n, wait = 0) { return this.call("GET", `/turns/${n}`, wait ? { headers: { Prefer: `wait=${wait}` } } : {}); }
  failures() { return this.call("GET", "/turns?status=failed&limit=50"); }
  messages(before) { return this.call("GET", `/messages?limit=40${before ? `&before=${before}` : ""}`); }
  rename(name) { return this.call("PATCH", "", { body: { name } }); }
  reset() { return this.call("POST", "/reset"); }
  remove() { return this.call("DELETE", ""); }
  cancel(n) { return this.call("POST", `/turns/${n}/cancel`); }
  /** Stop the running turn and withdraw all that wait. */
  stop() { return this.call("POST", "/stop"); }
  change(n, text) { return this.call("PATCH", `/turns/${n}`, { body: { text } }); }
  again(n) { return this.call("POST", `/turns/${n}/again`, { headers: { "Idempotency-Key": crypto.randomUUID() } }); }
  judge(message, value, comment) {
    return this.call("PUT", `/messages/${encodeURIComponent(message)}/feedback`, { body: { value, comment } });
  }

  async fork(at, name) { return this.#client.session(await this.call("POST", "/fork", { body: { at, name } })); }

  /** Keep a file, whose `url` goes into the attachments of a message. */
  upload(file, name = file.name || "file") {
    const form = new FormData();
    form.append("file", file, name);
    return this.call("POST", "/files", { body: form, json: false });
  }

  /** The bytes of a file of this session. */
  async content(url) {
    const found = await this.#client.send("GET", new URL(url, this.url("")).href, { token: this.token });
    return found.blob();
  }

  /** The events behind a cursor, as they come; `on` is told of them, of the line and of its end. */
  follow(cursor, on) { return new Line(this, cursor, on); }
}

const QUIET = 25_000; // ms without data from the server after which a ping is sent
const PATIENCE = 8_000; // ms to wait for the answer to the ping

const backOff = (tries) => Math.min(5000, 250 * 2 ** tries) * (0.7 + 0.6 * Math.random());
const pause = (tries) => new Promise((done) => setTimeout(done, backOff(tries)));
const hears = (target, ...all) => target?.addEventListener && target.addEventListener(...all);

/** Follows a session's events after `cursor`, and resumes there when the connection breaks. */
export class Line {
  constructor(session, cursor, { onEvent, onState = () => {}, onGone = () => {} }) {
    Object.assign(this, { session, onEvent, onState, onGone, tries: 0, closed: false });
    this.after = cursor; // names the event; from then on its number is enough
    this.cursor = parseInt(cursor, 10);
    this.again = () => this.retryNow();
    hears(globalThis, "online", this.again);
    hears(globalThis.document, "visibilitychange", this.again);
    this.connect();
  }

  connect() {
    const mine = {};
    this.wire = mine;
    this.session.bearer().then((token) => {
      if (this.wire !== mine || this.closed) return;
      const on = {
        open: () => { this.tries = 0; this.onState("open"); this.watch(); },
        event: (event) => { this.watch(); this.take(event); },
        close: (code) => { if (this.wire === mine) this.lost(code); },
      };
      Object.assign(mine, globalThis.WebSocket && token && !this.session.id.includes("/") ? socket(this, token, on) : stream(this, token, on));
    }, () => this.lost(1006));
  }

  take(event) {
    if (event.type === "pong" || event.type === "error") return;
    if (event.type !== "gap" && event.id <= this.cursor) return;
    this.cursor = this.after = event.id;
    this.onEvent(event);
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.wire?.ping?.();
      this.timer = setTimeout(() => this.drop(), PATIENCE);
    }, QUIET);
  }

  drop() {
    const { wire } = this;
    this.lost(1006);
    wire?.close?.();
  }

  lost(code) {
    clearTimeout(this.timer);
    if (this.closed) return;
    this.wire = null;
    if (code === 4404 || code === 4401) return this.onGone(code);
    this.onState("lost");
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.connect(), backOff(this.tries++));
  }

  retryNow() {
    if (this.closed || this.wire || globalThis.document?.hidden) return;
    clearTimeout(this.retry);
    this.connect();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    globalThis.removeEventListener?.("online", this.again);
    globalThis.document?.removeEventListener("visibilitychange", this.again);
    this.wire?.close?.();
  }
}

function socket({ session, after }, token, on) {
  const url = session.url(`/ws?after=${after}`);
  url.protocol = url.protocol.replace("http", "ws");
  const made = new WebSocket(url, ["turnwise.v1", `token.${token}`]);
  made.onopen = on.open;
  made.onmessage = ({ data }) => on.event(JSON.parse(data));
  made.onclose = ({ code }) => on.close(code);
  return {
    ping: () => { if (made.readyState === WebSocket.OPEN) made.send('{"type":"ping"}'); },
    close: () => made.close(),
  };
}

// Where there are no sockets, or cookies decide, or the id has a slash: server-sent events.
function stream({ session, after }, token, on) {
  const stop = new AbortController();
  const headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
  (async () => {
    const response = await fetch(session.url(`/events?after=${after}`), { headers, signal: stop.signal });
    if (!response.ok) return on.close({ 401: 4401, 404: 4404 }[response.status] ?? 1006);
    on.open();
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of response.body) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((line) => line.startsWith("data: "));
        on.event(data ? JSON.parse(data.slice(6)) : { type: "pong" });
      }
    }
    on.close(1006);
  })().catch(() => on.close(1006));
  return { close: () => stop.abort() };
}

/** Messages that the server does not have yet: kept in `storage` across reloads, sent in order, each once. */
export class Outbox {
  #storage; #name; #on; #flushing = false;

  /** `on.session(id)` is the session of a message, if it is still there; `on.sent(message)` and
   * `on.failed(problem, message)` are told; one that cannot be sent ever is taken out. */
  constructor({ storage = globalThis.localStorage, name = "turnwise.outbox", on }) {
    this.#storage = storage;
    this.#name = name;
    this.#on = on;
    this.read();
  }

  /** What is in it; another tab may have changed it. */
  read() {
    try { this.messages = JSON.parse(this.#storage.getItem(this.#name)) ?? []; } catch { this.messages ??= []; }
  }

  #write() {
    try { this.#storage.setItem(this.#name, JSON.stringify(this.messages)); } catch { /* a private window */ }
  }

  of(session) { return this.messages.filter((message) => message.session === session.id); }

  put(session, message) {
    this.messages.push({ session: session.id, key: crypto.randomUUID(), ...message });
    this.#write();
  }

  /** The server has it. */
  settle(key) {
    this.messages = this.messages.filter((message) => message.key !== key);
    this.#write();
  }

  forget(session) {
    this.messages = this.messages.filter((message) => message.session !== session.id);
    this.#write();
  }

  async flush() {
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (this.messages.length) {
        const [{ session: id, ...message }] = this.messages;
        const session = this.#on.session(id);
        try {
          if (session) await session.submit(message);
          this.settle(message.key);
          this.#on.sent({ session: id, ...message });
        } catch (problem) {
          if (!problem.retryable) this.settle(message.key);
          this.#on.failed(problem, { session: id, ...message });
          if (problem.retryable) await new Promise((done) => setTimeout(done, problem.status === 429 ? 1500 : 700));
        }
      }
    } finally { this.#flushing = false; }
  }
}

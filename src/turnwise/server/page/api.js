// Connects to the server: sessions, messages, and one live connection that resumes by itself.

const root = new URL(".", document.baseURI);
const here = (path) => new URL(path, root);

/** What went wrong, in words a person can read. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || "The server could not be reached.");
    this.status = status;
    this.code = body?.code || "unreachable";
    this.retryable = status === 0 || body?.retryable === true;
  }
}

async function call(method, path, { token, body, headers } = {}) {
  const how = { method, headers: { ...headers }, cache: "no-store" };
  if (token) how.headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) {
    how.headers["Content-Type"] = "application/json";
    how.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(here(path), how);
  } catch {
    throw new Problem(0);
  }
  if (response.status === 204) return null;
  const content = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, content);
  return content;
}

const path = (session, rest = "") => `sessions/${encodeURIComponent(session.id)}${rest}`;

export const about = () => call("GET", "page/about");
export const create = (key) => call("POST", "sessions", { token: key, body: {} });
export const rename = (s, name) => call("PATCH", path(s), { token: s.token, body: { name } });
export const reset = (s) => call("POST", path(s, "/reset"), { token: s.token });
export const remove = (s) => call("DELETE", path(s), { token: s.token });
export const cancel = (s, n) => call("POST", path(s, `/turns/${n}/cancel`), { token: s.token });
export const refresh = (s) => call("POST", path(s, "/token"), { token: s.token });
export const change = (s, n, text) => call("PATCH", path(s, `/turns/${n}`), { token: s.token, body: { text } });
export const again = (s, n) =>
  call("POST", path(s, `/turns/${n}/again`), { token: s.token, headers: { "Idempotency-Key": crypto.randomUUID() } });
export const fork = (s, at, name) => call("POST", path(s, "/fork"), { token: s.token, body: { at, name } });
export const failures = (s) => call("GET", path(s, "/turns?status=failed&limit=50"), { token: s.token });
export const messages = (s, before) =>
  call("GET", path(s, `/messages?limit=40${before ? `&before=${before}` : ""}`), { token: s.token });
export const render = (s, texts) =>
  call("POST", "page/render", { token: s.token, body: { texts } }).then((answer) => answer.html);
export async function upload(s, file) {
  const form = new FormData();
  form.append("file", file, file.name || "file");
  let response;
  try {
    response = await fetch(here(path(s, "/files")), { method: "POST", body: form, headers: { Authorization: `Bearer ${s.token}` } });
  } catch { throw new Problem(0); }
  const content = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, content);
  return content;
}
export async function content(s, url) {
  const response = await fetch(url, { headers: { Authorization: `Bearer ${s.token}` } });
  if (!response.ok) throw new Problem(response.status, null);
  return response.blob();
}
/** The same key is one turn, however often the request is repeated. */
export const submit = (s, { text, answers, attachments, replaces, key }) =>
  call("POST", path(s, "/turns"), { token: s.token, body: { text, answers, attachments, replaces }, headers: { "Idempotency-Key": key } });

const QUIET = 25_000; // ms without data from the server after which the page sends a ping
const PATIENCE = 8_000; // ms to wait for the answer to the ping

/** Follows a session's events after `cursor`, and resumes there when the connection breaks. */
export class Line {
  constructor(session, cursor, { onEvent, onState, onGone }) {
    Object.assign(this, { session, onEvent, onState, onGone, tries: 0, closed: false });
    this.after = cursor;  // names the event; from then on its number is enough
    this.cursor = parseInt(cursor, 10);
    this.again = () => this.retryNow();
    addEventListener("online", this.again);
    document.addEventListener("visibilitychange", this.again);
    this.connect();
  }

  connect() {
    const url = here(path(this.session, `/ws?after=${this.after}`));
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, ["turnwise.v1", `token.${this.session.token}`]);
    this.socket = socket;
    socket.onopen = () => { this.tries = 0; this.onState("open"); this.watch(); };
    socket.onmessage = ({ data }) => { this.watch(); this.take(JSON.parse(data)); };
    socket.onclose = ({ code }) => { if (this.socket === socket) this.lost(code); };
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
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type":"ping"}');
      this.timer = setTimeout(() => this.drop(), PATIENCE);
    }, QUIET);
  }

  drop() {
    const socket = this.socket;
    this.lost(1006);
    socket.close();
  }

  lost(code) {
    clearTimeout(this.timer);
    if (this.closed) return;
    this.socket = null;
    if (code === 4404 || code === 4401) return this.onGone(code);
    this.onState("lost");
    const wait = Math.min(5000, 250 * 2 ** this.tries++) * (0.7 + 0.6 * Math.random());
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.closed || this.socket || document.hidden) return;
    clearTimeout(this.retry);
    this.connect();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    removeEventListener("online", this.again);
    document.removeEventListener("visibilitychange", this.again);
    this.socket?.close();
  }
}

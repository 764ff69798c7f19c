// The types of turnwise.js.

export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly retryable: boolean;
}

export interface Attachment { type: string; url: string; name?: string; size?: number }
export interface Ask { id: string; kind: "question" | "form" | "tool"; choices?: string[]; name?: string; data?: unknown }
export interface Message {
  id: string; seq: number | null; turn: number; role: "user" | "assistant" | "system" | "tool"; text: string;
  created_at: string; attachments: Attachment[]; metadata: Record<string, unknown>;
  partial?: boolean; status?: string; ask?: Ask; answers?: { ask: string; value: unknown }[];
}
export interface Turn {
  session: string; n: number; status: "queued" | "running" | "completed" | "failed" | "cancelled" | "merged"; attempt: number;
  position?: number; message: Message | null; reply?: { text: string; messages: Message[]; usage?: Record<string, unknown> };
  error?: { code: string; message: string; retryable: boolean };
}
export interface TurnwiseEvent { id: number; type: string; turn?: number; at: string; [field: string]: unknown }
export interface NewMessage {
  text?: string; key?: string; attachments?: Attachment[]; answers?: { ask: string; value: unknown }[];
  replaces?: number; when_busy?: "queue" | "interrupt" | "merge" | "reject"; settle?: number; metadata?: Record<string, unknown>;
}
export interface History { messages: Message[]; has_more: boolean; open: Turn[]; asks: string[]; cursor: string }
export interface SessionInfo { id: string; token?: string | null; name?: string | null }

export interface ClientOptions {
  auth?: string | null | (() => string | null | Promise<string | null>);
  fetch?: typeof globalThis.fetch;
}

export class Client {
  constructor(root?: string | URL, options?: ClientOptions);
  url(path: string): URL;
  create(body?: { name?: string; metadata?: Record<string, unknown> }): Promise<Session>;
  session(known: SessionInfo): Session;
  list(asked?: { before?: string; q?: string; limit?: number }): Promise<{ sessions: SessionInfo[]; has_more: boolean; next: string | null }>;
  call(method: string, path: string, more?: object): Promise<any>;
}

export interface Listener {
  onEvent(event: TurnwiseEvent): void;
  onState?(state: "open" | "lost"): void;
  onGone?(code: 4401 | 4404): void;
}

export class Session {
  readonly id: string;
  token: string | null;
  name: string | null;
  submit(message: NewMessage, headers?: Record<string, string>): Promise<Turn>;
  ask(text: string, message?: NewMessage): Promise<Turn>;
  turn(n: number, wait?: number): Promise<Turn>;
  messages(before?: number): Promise<History>;
  follow(cursor: number | string, on: Listener): Line;
  rename(name: string): Promise<unknown>;
  reset(): Promise<unknown>;
  remove(): Promise<null>;
  cancel(n: number): Promise<Turn>;
  stop(): Promise<{ turns: Turn[] }>;
  change(n: number, text: string): Promise<Turn>;
  again(n: number): Promise<Turn>;
  judge(message: string, value: "up" | "down", comment?: string): Promise<null>;
  fork(at?: number, name?: string): Promise<Session>;
  upload(file: Blob, name?: string): Promise<Attachment & { id: string }>;
  content(url: string): Promise<Blob>;
}

export class Line {
  readonly cursor: number;
  close(): void;
}

export class Outbox {
  readonly messages: (NewMessage & { session: string; key: string })[];
  constructor(options: {
    storage?: Pick<Storage, "getItem" | "setItem">; name?: string;
    on: { session(id: string): Session | undefined; sent(message: NewMessage): void; failed(problem: Problem, message: NewMessage): void };
  });
  read(): void;
  of(session: Session): NewMessage[];
  put(session: Session, message: NewMessage): void;
  settle(key: string): void;
  forget(session: Session): void;
  flush(): Promise<void>;
}

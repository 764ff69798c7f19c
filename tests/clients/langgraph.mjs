// LangGraph's client, as it is.
import assert from "node:assert/strict";
import { Client } from "@langchain/langgraph-sdk";
import { ask, fresh, headers, numbers, run, sleep, until, world } from "./world.mjs";

const connect = (base = world.url, owner = "ada", more = {}) =>
  new Client({ apiUrl: `${base}/langgraph`, apiKey: null, defaultHeaders: headers(owner), ...more });

const client = connect();
const human = (text) => ({ messages: [{ type: "human", id: fresh("message"), content: text }] });
const thread = async (from = client) => (await from.threads.create()).thread_id;
const say = (id, text, more = {}, from = client) =>
  from.runs.wait(id, "agent", { input: human(text), raiseError: false, ...more });
const texts = (values) => values.messages.map((one) => one.content);
const last = async (...said) => texts(await say(...said)).at(-1);
const collect = async (stream, each = () => {}) => {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    await each(chunk, chunks);
  }
  return chunks;
};
const finalText = (chunks) =>
  texts(chunks.findLast((one) => one.event === "values").data).at(-1);

await run({
  async send() {
    const id = await thread();
    assert.equal(await last(id, "hello"), "1: hello");
    assert.equal(await last(id, "again"), "2: again");
  },
  async stream() {
    const id = await thread();
    const streamMode = ["values", "messages-tuple"];
    const chunks = await collect(
      client.runs.stream(id, "agent", { input: human("count 5"), streamMode }),
    );
    const deltas = chunks.filter((one) => one.event === "messages").map((one) => one.data[0].content);
    assert.equal(deltas.join(""), numbers(5));
    assert.ok(deltas.length > 2);
    assert.equal(finalText(chunks), numbers(5));
    assert.deepEqual(texts(await say(id, "two")).slice(-3), ["two", "one ", "second"]);
  },
  async queue() {
    const id = await thread();
    const first = await client.runs.create(id, "agent", { input: human("count 10") });
    const second = await client.runs.create(id, "agent", {
      input: human("next"), multitaskStrategy: "enqueue",
    });
    assert.deepEqual([first.status, second.status], ["running", "pending"]);
    const values = await client.runs.join(id, second.run_id);
    assert.deepEqual(texts(values), ["count 10", numbers(10), "next", "2: next"]);
    const busy = await client.runs.create(id, "agent", { input: human("count 50") });
    await assert.rejects(
      client.runs.create(id, "agent", { input: human("no"), multitaskStrategy: "reject" }), /409/,
    );
    await client.runs.cancel(id, busy.run_id, true);
  },
  async "resume after a cut line"() {
    const id = await thread();
    const through = connect(world.cut);
    let cut = false;
    const chunks = await collect(
      through.runs.stream(id, "agent", { input: human("count 20"), streamMode: ["values", "messages-tuple"] }),
      async (chunk, seen) => {
        if (!cut && seen.length === 8) {
          cut = true;
          await ask("cut");
        }
      },
    );
    const deltas = chunks.filter((one) => one.event === "messages").map((one) => one.data[0].content);
    assert.equal(deltas.join(""), numbers(20));
    assert.equal(finalText(chunks), numbers(20));
  },
  async "resume after SIGKILL on another process"() {
    const id = await thread();
    const created = await client.runs.create(id, "agent", { input: human("count 20") });
    await sleep(500);
    await ask("kill");
    const other = connect(world.other);
    const chunks = await collect(
      other.runs.joinStream(id, created.run_id, { streamMode: ["values", "messages-tuple"] }),
    );
    assert.equal(finalText(chunks), numbers(20));
    assert.equal((await other.runs.get(id, created.run_id)).status, "success");
  },
  async "stop, and the partial text stays"() {
    const id = await thread();
    const created = await client.runs.create(id, "agent", { input: human("count 50") });
    await sleep(400);
    await client.runs.cancel(id, created.run_id, true);
    assert.equal((await client.runs.get(id, created.run_id)).status, "interrupted");
    assert.match(texts((await client.threads.getState(id)).values).at(-1), /^0 1 /);
    assert.equal(await last(id, "next"), "1: next");
    const controller = new AbortController();
    const left = client.runs.stream(id, "agent", {
      input: human("count 50"), onDisconnect: "cancel", signal: controller.signal,
      streamMode: "messages-tuple",
    });
    await collect(left, (_, seen) => seen.length === 4 && controller.abort()).catch(() => {});
    await until(async () => (await client.threads.get(id)).status === "idle", "the run stops");
  },
  async "failure, and the next message works"() {
    const id = await thread();
    assert.equal((await say(id, "fail")).__error__.message, "I will not.");
    const chunks = await collect(client.runs.stream(id, "agent", { input: human("fail") }));
    assert.equal(chunks.at(-1).event, "error");
    assert.equal(await last(id, "next"), "1: next");
  },
  async "regenerate and edit"() {
    const id = await thread();
    await say(id, "one");
    await say(id, "three");
    const [, before] = await client.threads.getHistory(id);
    const again = await client.runs.wait(id, "agent", { input: null, checkpoint: before.checkpoint });
    assert.deepEqual(texts(again), ["one", "1: one", "three", "2: three"]);
    const first = (await client.threads.getHistory(id)).at(-1);
    const edited = await client.runs.wait(id, "agent", {
      input: human("eins"), checkpoint: first.checkpoint,
    });
    assert.deepEqual(texts(edited), ["eins", "1: eins"]);
    const running = await client.runs.create(id, "agent", { input: human("count 50") });
    await sleep(300);
    const rolled = await say(id, "next", { multitaskStrategy: "rollback" });
    assert.deepEqual(texts(rolled), ["eins", "1: eins", "next", "2: next"]);
    assert.equal((await client.runs.get(id, running.run_id)).status, "interrupted");
  },
  async "tools and reasoning of the bot"() {
    const id = await thread();
    const values = await say(id, "tool");
    assert.deepEqual(values.messages.map((one) => one.type), ["human", "ai", "tool", "ai"]);
    assert.equal(values.messages[2].content, '{"t":3}');
    return "tools; reasoning is not there";
  },
  async "an approval"() {
    const id = await thread();
    const asked = await say(id, "ask");
    assert.equal(asked.__interrupt__[0].value.text, "Send?");
    assert.equal((await client.threads.get(id)).status, "interrupted");
    const answered = await client.runs.wait(id, "agent", { command: { resume: "yes" } });
    assert.equal(texts(answered).at(-1), "answered yes");
  },
  async "a tool of the client"() {
    const id = await thread();
    const { messages } = await say(id, "client");
    const [call] = messages.at(-1).tool_calls;
    assert.deepEqual([call.name, call.args], ["where", { precise: true }]);
    const result = { type: "tool", tool_call_id: call.id, content: '{"lat": 52}' };
    const answered = await client.runs.wait(id, "agent", { input: { messages: [result] } });
    assert.equal(texts(answered).at(-1), 'answered {"lat":52}');
  },
  async "two owners with equal ids"() {
    const threadId = fresh("thread");
    const bob = connect(world.url, "bob");
    for (const one of [client, bob]) await one.threads.create({ threadId });
    assert.equal(await last(threadId, "mine"), "1: mine");
    assert.equal(await last(threadId, "theirs", {}, bob), "1: theirs");
    const own = await thread();
    await assert.rejects(bob.threads.get(own), /404/);
    assert.ok((await bob.threads.search({ limit: 100 })).every((one) => one.thread_id !== own));
    assert.ok((await client.threads.search({ limit: 100 })).some((one) => one.thread_id === own));
  },
  async "a retry does not double"() {
    const id = await thread();
    const input = human("once");
    for (let i = 0; i < 2; i++) await client.runs.wait(id, "agent", { input });
    assert.deepEqual(texts((await client.threads.getState(id)).values), ["once", "1: once"]);
  },
  async "the same ids in stream and history"() {
    const id = await thread();
    const chunks = await collect(
      client.runs.stream(id, "agent", { input: human("two"), streamMode: "messages" }),
    );
    const seen = new Set(
      chunks.filter((one) => one.event === "messages/partial").map((one) => one.data[0].id),
    );
    const { messages } = (await client.threads.getState(id)).values;
    assert.deepEqual(messages.slice(1).map((one) => one.id), [...seen]);
  },
});

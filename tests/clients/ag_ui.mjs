// HttpAgent, as it is.
import assert from "node:assert/strict";
import { HttpAgent } from "@ag-ui/client";
import { ask, fresh, headers, numbers, run, sleep, until, world } from "./world.mjs";

const open = (threadId, { base = world.url, owner = "ada", ...more } = {}) =>
  new HttpAgent({ url: `${base}/ag-ui`, threadId, headers: headers(owner), ...more });
const texts = (agent) =>
  agent.messages.filter((one) => one.role !== "reasoning").map((one) => one.content);
const add = (agent, text) =>
  agent.addMessage({ id: fresh("message"), role: "user", content: text });
const say = async (agent, text, subscriber) => {
  add(agent, text);
  await agent.runAgent({ runId: fresh("run") }, subscriber);
  return agent.messages.at(-1).content;
};
const failing = async (running) => {
  let error;
  await running.catch((found) => (error = found));
  return error;
};

await run({
  async send() {
    const agent = open(fresh("thread"));
    assert.equal(await say(agent, "hello"), "1: hello");
    assert.equal(await say(agent, "again"), "2: again");
  },
  async stream() {
    const agent = open(fresh("thread"));
    const deltas = [];
    const onTextMessageContentEvent = ({ event }) => void deltas.push(event.delta);
    assert.equal(await say(agent, "count 5", { onTextMessageContentEvent }), numbers(5));
    assert.ok(deltas.length > 2);
    await say(agent, "two");
    assert.deepEqual(texts(agent).slice(-3), ["two", "one ", "second"]);
  },
  async queue() {
    const id = fresh("thread");
    const agent = open(id);
    const tab = open(id);
    const first = say(agent, "count 10");
    await sleep(300);
    assert.equal(await say(tab, "next"), "2: next");
    assert.equal(await first, numbers(10));
  },
  async "resume after a cut line"() {
    const agent = open(fresh("thread"), { base: world.cut });
    add(agent, "count 20");
    const runId = fresh("run");
    const running = failing(agent.runAgent({ runId }));
    await until(() => (agent.messages.at(-1).content ?? "").startsWith("0 1 "), "some text");
    await ask("cut");
    assert.ok(await running);
    await agent.runAgent({ runId });
    assert.deepEqual(texts(agent), ["count 20", numbers(20)]);
  },
  async "resume after SIGKILL on another process"() {
    const id = fresh("thread");
    const agent = open(id);
    add(agent, "count 20");
    const running = failing(agent.runAgent({ runId: fresh("run") }));
    await until(() => (agent.messages.at(-1).content ?? "").startsWith("0 1 "), "some text");
    await ask("kill");
    assert.ok(await running);
    const moved = open(id, { base: world.other });
    await moved.runAgent({ runId: fresh("run") });
    assert.deepEqual(texts(moved), ["count 20", numbers(20)]);
  },
  async "stop, and the partial text stays"() {
    const id = fresh("thread");
    const agent = open(id);
    add(agent, "count 50");
    const runId = fresh("run");
    const running = agent.runAgent({ runId });
    await until(() => (agent.messages.at(-1).content ?? "").startsWith("0 1 "), "some text");
    const response = await fetch(`${world.url}/ag-ui/agent/turnwise/stop/${id}`, {
      method: "POST",
      headers: { ...headers(), "Content-Type": "application/json" },
      body: JSON.stringify({ runId }),
    });
    assert.equal(response.status, 200);
    await running;
    assert.match(agent.messages.at(-1).content, /^0 1 /);
    assert.equal(await say(agent, "next"), "1: next");
  },
  async "failure, and the next message works"() {
    const agent = open(fresh("thread"));
    let failed;
    add(agent, "fail");
    await agent
      .runAgent({ runId: fresh("run") }, { onRunErrorEvent: ({ event }) => void (failed = event) })
      .catch(() => {});
    assert.equal(failed.message, "I will not.");
    assert.equal(await say(agent, "next"), "1: next");
  },
  async "regenerate and edit"() {
    const agent = open(fresh("thread"));
    await say(agent, "one");
    await say(agent, "three");
    agent.setMessages(agent.messages.slice(0, -1));
    await agent.runAgent({ runId: fresh("run") });
    assert.deepEqual(texts(agent), ["one", "1: one", "three", "2: three"]);
    agent.setMessages([{ ...agent.messages[0], content: "eins" }]);
    await agent.runAgent({ runId: fresh("run") });
    assert.deepEqual(texts(agent), ["eins", "1: eins"]);
  },
  async "tools and reasoning of the bot"() {
    const agent = open(fresh("thread"));
    await say(agent, "tool");
    const result = agent.messages.find((one) => one.role === "tool");
    assert.equal(result.content, '{"t":3}');
    let thought = "";
    await say(agent, "think", {
      onEvent: ({ event }) => {
        if (event.type === "REASONING_MESSAGE_CONTENT") thought += event.delta;
      },
    });
    assert.equal(thought, "hm so");
  },
  async "an approval"() {
    const agent = open(fresh("thread"));
    let outcome;
    await say(agent, "ask", { onRunFinishedEvent: (params) => void (outcome = params.event.outcome) });
    const [asked] = outcome.interrupts;
    assert.equal(asked.message, "Send?");
    const resume = [{ interruptId: asked.id, status: "resolved", payload: "yes" }];
    await agent.runAgent({ runId: fresh("run"), resume });
    assert.equal(agent.messages.at(-1).content, "answered yes");
  },
  async "a tool of the client"() {
    const agent = open(fresh("thread"));
    await say(agent, "client");
    const { toolCalls } = agent.messages.find((one) => one.toolCalls);
    assert.equal(toolCalls[0].function.name, "where");
    agent.addMessage({
      id: fresh("message"), role: "tool", toolCallId: toolCalls[0].id, content: '{"lat": 52}',
    });
    await agent.runAgent({ runId: fresh("run") });
    assert.equal(agent.messages.at(-1).content, 'answered {"lat":52}');
  },
  async "two owners with equal ids"() {
    const id = fresh("thread");
    assert.equal(await say(open(id), "mine"), "1: mine");
    assert.equal(await say(open(id, { owner: "bob" }), "theirs"), "1: theirs");
    const again = open(id);
    await again.runAgent({ runId: fresh("run") });
    assert.deepEqual(texts(again), ["mine", "1: mine"]);
  },
  async "a retry does not double"() {
    const agent = open(fresh("thread"));
    const runId = fresh("run");
    add(agent, "once");
    await agent.runAgent({ runId });
    await agent.runAgent({ runId });
    assert.deepEqual(texts(agent), ["once", "1: once"]);
  },
  async "the same ids in stream and history"() {
    const id = fresh("thread");
    const agent = open(id);
    await say(agent, "two");
    const tab = open(id);
    await tab.runAgent({ runId: fresh("run") });
    assert.deepEqual(tab.messages.map((one) => one.id), agent.messages.map((one) => one.id));
  },
});

// useChat's Chat object and transports, as they are, without a framework around them.
import assert from "node:assert/strict";
import { Chat } from "@ai-sdk/react";
import * as ai from "ai";
import { ask, fresh, headers, numbers, run, sleep, until, version, world } from "./world.mjs";

const major = Number((await version("ai")).split(".")[0]);

const open = (id, { base = world.url, owner = "ada", messages = [], ...more } = {}) =>
  new Chat({
    id,
    messages,
    transport: new ai.DefaultChatTransport({
      api: `${base}/ai-sdk/chat`,
      headers: { ...headers(owner), "x-ai-sdk-version": String(major) },
    }),
    ...more,
  });
const call = async (path, { method = "GET", base = world.url, owner = "ada" } = {}) => {
  const response = await fetch(`${base}/ai-sdk${path}`, { method, headers: headers(owner) });
  assert.equal(response.status, 200);
  return response.json();
};
const textOf = (message) =>
  message.parts.filter((part) => part.type === "text").map((part) => part.text).join("|");
const texts = (chat) => chat.messages.map(textOf);
const say = async (chat, text) => {
  await chat.sendMessage({ text });
  return textOf(chat.lastMessage);
};

await run({
  async send() {
    const chat = open(fresh("chat"));
    assert.equal(await say(chat, "hello"), "1: hello");
    assert.equal(await say(chat, "again"), "2: again");
    assert.equal(chat.status, "ready");
  },
  async stream() {
    const chat = open(fresh("chat"));
    const seen = new Set();
    const sending = chat.sendMessage({ text: "count 5" });
    const watch = setInterval(() => chat.lastMessage && seen.add(textOf(chat.lastMessage)), 20);
    await sending;
    clearInterval(watch);
    assert.ok(seen.size > 3);
    assert.equal(textOf(chat.lastMessage), numbers(5));
    assert.equal(await say(chat, "two"), "one |second");
  },
  async queue() {
    const id = fresh("chat");
    const chat = open(id);
    const tab = open(id);
    const first = chat.sendMessage({ text: "count 10" });
    await sleep(300);
    assert.equal(await say(tab, "next"), "2: next");
    await first;
    const loaded = await call(`/chat/${id}/messages`);
    assert.deepEqual(loaded.map(textOf), ["count 10", numbers(10), "next", "2: next"]);
  },
  async "resume after a cut line"() {
    const chat = open(fresh("chat"), { base: world.cut });
    const sending = chat.sendMessage({ text: "count 40" });
    await until(() => chat.lastMessage && textOf(chat.lastMessage).length > 4, "some text");
    await ask("cut");
    await sending;
    assert.equal(chat.status, "error");
    await chat.resumeStream();
    assert.equal(chat.status, "ready");
    assert.deepEqual(texts(chat), ["count 40", numbers(40)]);
  },
  async "resume after SIGKILL on another process"() {
    const id = fresh("chat");
    const chat = open(id);
    const sending = chat.sendMessage({ text: "count 20" });
    await until(() => chat.lastMessage && textOf(chat.lastMessage).length > 4, "some text");
    await ask("kill");
    await sending;
    assert.equal(chat.status, "error");
    const messages = await call(`/chat/${id}/messages`, { base: world.other });
    const moved = open(id, { base: world.other, messages });
    await moved.resumeStream();
    if (major >= 7) assert.deepEqual(texts(moved), ["count 20", numbers(20)]);
    else assert.ok(texts(moved)[1].endsWith(numbers(20)));
    if (major < 7) return "the voided text stays until the page loads again";
  },
  async "stop, and the partial text stays"() {
    const id = fresh("chat");
    const chat = open(id);
    const sending = chat.sendMessage({ text: "count 50" });
    await until(() => chat.lastMessage && textOf(chat.lastMessage).length > 4, "some text");
    await call(`/chat/${id}/stop`, { method: "POST" });
    await sending;
    const said = textOf(chat.lastMessage);
    assert.match(said, /^0 1 /);
    const loaded = await call(`/chat/${id}/messages`);
    assert.equal(textOf(loaded[1]), said);
    assert.equal(await say(chat, "next"), "1: next");
  },
  async "failure, and the next message works"() {
    const chat = open(fresh("chat"));
    await chat.sendMessage({ text: "fail" });
    assert.equal(chat.status, "error");
    assert.equal(chat.error.message, "I will not.");
    assert.equal(await say(chat, "next"), "1: next");
  },
  async "regenerate and edit"() {
    const id = fresh("chat");
    const chat = open(id);
    await say(chat, "one");
    await say(chat, "three");
    await chat.regenerate();
    assert.deepEqual(texts(chat), ["one", "1: one", "three", "2: three"]);
    await chat.sendMessage({ text: "eins", messageId: chat.messages[0].id });
    assert.deepEqual(texts(chat), ["eins", "1: eins"]);
    await chat.sendMessage({ text: "one", messageId: chat.messages[0].id });
    const loaded = await call(`/chat/${id}/messages`);
    assert.deepEqual(loaded.map(textOf), ["one", "1: one"]);
    assert.equal(loaded[0].id, chat.messages[0].id);
  },
  async "tools and reasoning of the bot"() {
    const chat = open(fresh("chat"));
    await say(chat, "tool");
    const tool = chat.lastMessage.parts.find((part) => part.type === "dynamic-tool");
    assert.deepEqual([tool.state, tool.output], ["output-available", { t: 3 }]);
    await say(chat, "think");
    const thought = chat.lastMessage.parts.find((part) => part.type === "reasoning");
    assert.equal(thought.text, "hm so");
  },
  async "an approval"() {
    if (major < 6) return "not there: it has no approvals";
    const chat = open(fresh("chat"), {
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
    });
    await say(chat, "ask");
    const part = chat.lastMessage.parts.find((one) => one.state === "approval-requested");
    await chat.addToolApprovalResponse({ id: part.approval.id, approved: true });
    await until(() => textOf(chat.lastMessage).includes("answered yes"), "the answer");
  },
  async "a tool of the client"() {
    const chat = open(fresh("chat"), {
      sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithToolCalls,
    });
    await say(chat, "client");
    const part = chat.lastMessage.parts.find((one) => one.type === "tool-where");
    assert.deepEqual([part.state, part.input], ["input-available", { precise: true }]);
    await chat.addToolOutput({ tool: "where", toolCallId: part.toolCallId, output: { lat: 52 } });
    await until(() => textOf(chat.lastMessage).includes('answered {"lat":52}'), "the answer");
  },
  async "two owners with equal ids"() {
    const id = fresh("chat");
    assert.equal(await say(open(id), "mine"), "1: mine");
    assert.equal(await say(open(id, { owner: "bob" }), "theirs"), "1: theirs");
    assert.deepEqual((await call(`/chat/${id}/messages`)).map(textOf), ["mine", "1: mine"]);
  },
  async "a retry does not double"() {
    const id = fresh("chat");
    const chat = open(id);
    await say(chat, "once");
    const tab = open(id, { messages: [chat.messages[0]] });
    await tab.regenerate();
    await say(chat, "twice");
    const again = open(id, { messages: chat.messages.slice(0, -1) });
    await again.sendMessage();
    const loaded = await call(`/chat/${id}/messages`);
    assert.deepEqual(loaded.map(textOf), ["once", "1: once", "twice", "2: twice"]);
  },
  async "the same ids in stream and history"() {
    const id = fresh("chat");
    const chat = open(id);
    await say(chat, "two");
    const loaded = await call(`/chat/${id}/messages`);
    assert.deepEqual(loaded.map((one) => one.id), chat.messages.map((one) => one.id));
  },
});

// The openai package, as it is: responses, conversations, chat completions.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { ask, fresh, headers, numbers, run, sleep, until, world } from "./world.mjs";

const client = (base = world.url, owner = "ada") =>
  new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: world.key, defaultHeaders: headers(owner) });

const openai = client();
const model = "turnwise";
const say = (conversation, input, more = {}) =>
  openai.responses.create({ model, conversation, input, ...more });
const items = async (conversation, from = openai) =>
  (await from.conversations.items.list(conversation, { order: "asc", limit: 100 })).data;
const texts = async (conversation) =>
  (await items(conversation)).flatMap((item) => (item.content ?? []).map((part) => part.text));

await run({
  async send() {
    const chat = fresh("chat");
    assert.equal((await say(chat, "hello")).output_text, "1: hello");
    const response = await say(chat, "again");
    assert.deepEqual([response.status, response.output_text], ["completed", "2: again"]);
    const completion = await openai.chat.completions.create(
      { model, messages: [{ role: "user", content: "third" }] },
      { headers: { "X-Conversation-Id": chat } },
    );
    assert.equal(completion.choices[0].message.content, "3: third");
  },
  async stream() {
    const stream = await say(fresh("chat"), "count 5", { stream: true });
    const deltas = [];
    for await (const event of stream)
      if (event.type === "response.output_text.delta") deltas.push(event.delta);
    assert.equal(deltas.join(""), numbers(5));
    assert.ok(deltas.length > 2);
    const helper = openai.responses.stream({ model, conversation: fresh("chat"), input: "two" });
    const response = await helper.finalResponse();
    assert.deepEqual(response.output.map((item) => item.content[0].text), ["one ", "second"]);
    assert.equal(response.usage.total_tokens, 7);
  },
  async queue() {
    const chat = fresh("chat");
    const first = await say(chat, "count 10", { background: true });
    const second = await say(chat, "next", { background: true });
    assert.deepEqual([first.status, second.status], ["in_progress", "queued"]);
    const done = await until(async () => {
      const response = await openai.responses.retrieve(second.id);
      return response.status === "completed" && response;
    }, "the second answer");
    assert.equal(done.output_text, "2: next");
    assert.equal((await openai.responses.retrieve(first.id)).output_text, numbers(10));
  },
  async "resume after a cut line"() {
    const through = client(world.cut);
    const first = await say(fresh("chat"), "count 20", { background: true });
    const seen = [];
    await assert.rejects(async () => {
      const stream = await through.responses.retrieve(first.id, { stream: true });
      for await (const event of stream) {
        seen.push(event);
        if (seen.length === 8) await ask("cut");
      }
    });
    const after = seen.at(-1).sequence_number;
    const rest = await through.responses.retrieve(first.id, { stream: true, starting_after: after });
    for await (const event of rest) seen.push(event);
    assert.deepEqual(seen.map((event) => event.sequence_number), [...seen.keys()]);
    assert.equal(seen.at(-1).response.output_text ?? seen.at(-1).response.output[0].content[0].text,
      numbers(20));
  },
  async "resume after SIGKILL on another process"() {
    const other = client(world.other);
    const first = await say(fresh("chat"), "count 20", { background: true });
    await assert.rejects(async () => {
      let n = 0;
      for await (const _ of await openai.responses.retrieve(first.id, { stream: true }))
        if (++n === 8) await ask("kill");
    });
    const stream = await other.responses.retrieve(first.id, { stream: true });
    let last;
    for await (const event of stream) last = event;
    assert.equal(last.type, "response.completed");
    const texts = last.response.output.map((item) => item.content[0].text);
    assert.deepEqual(texts, [numbers(20)]);
  },
  async "stop, and the partial text stays"() {
    const chat = fresh("chat");
    const first = await say(chat, "count 50", { background: true });
    await sleep(400);
    await openai.responses.cancel(first.id);
    const stopped = await openai.responses.retrieve(first.id);
    assert.equal(stopped.status, "cancelled");
    assert.match(stopped.output_text, /^0 1 /);
    assert.equal(stopped.output[0].status, "incomplete");
    assert.equal((await say(chat, "next")).output_text, "1: next");
  },
  async "failure, and the next message works"() {
    const chat = fresh("chat");
    const failed = await say(chat, "fail");
    assert.deepEqual([failed.status, failed.error.message], ["failed", "I will not."]);
    assert.equal(failed.output_text, "so far ");
    await assert.rejects(
      openai.chat.completions.create({ model, messages: [{ role: "user", content: "fail" }] }),
      /I will not/,
    );
    assert.equal((await say(chat, "next")).output_text, "1: next");
  },
  async "regenerate and edit"() {
    const first = await openai.responses.create({ model, input: "one" });
    const second = await openai.responses.create({
      model, input: "three", previous_response_id: first.id,
    });
    const again = await openai.responses.create({
      model, input: "zwei", previous_response_id: first.id,
    });
    assert.equal(second.conversation.id, first.conversation.id);
    assert.notEqual(again.conversation.id, first.conversation.id);
    assert.equal(again.output_text, "2: zwei");
    assert.deepEqual(await texts(again.conversation.id), ["one", "1: one", "zwei", "2: zwei"]);
    return "by a fork";
  },
  async "tools and reasoning of the bot"() {
    const chat = fresh("chat");
    const tool = await say(chat, "tool");
    assert.deepEqual(tool.output.map((item) => item.type), ["mcp_call", "message"]);
    const thinking = openai.responses.stream({ model, conversation: chat, input: "think" });
    let thought = "";
    thinking.on("response.reasoning_summary_text.delta", (event) => (thought += event.delta));
    assert.equal((await thinking.finalResponse()).output_text, "2: think");
    assert.equal(thought, "hm so");
  },
  async "an approval"() {
    const chat = fresh("chat");
    const asked = await say(chat, "ask");
    const call = asked.output.find((item) => item.type === "function_call");
    const output = { type: "function_call_output", call_id: call.call_id, output: "yes" };
    assert.equal((await say(chat, [output])).output_text, "answered yes");
    await assert.rejects(say(chat, [output]), /409/);
  },
  async "a tool of the client"() {
    const asked = await openai.responses.create({ model, input: "client" });
    const call = asked.output.find((item) => item.type === "function_call");
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["where", { precise: true }]);
    const messages = [{ role: "user", content: "client" }];
    const completion = await openai.chat.completions.create({ model, messages });
    const message = completion.choices[0].message;
    messages.push(message);
    messages.push({
      role: "tool", tool_call_id: message.tool_calls[0].id, content: '{"lat": 52}',
    });
    const answer = await openai.chat.completions.create({ model, messages });
    assert.equal(answer.choices[0].message.content, 'answered {"lat":52}');
  },
  async "two owners with equal ids"() {
    const chat = fresh("chat");
    const bob = client(world.url, "bob");
    const response = await say(chat, "mine");
    const theirs = await bob.responses.create({ model, conversation: chat, input: "theirs" });
    assert.equal(theirs.output_text, "1: theirs");
    await assert.rejects(bob.responses.retrieve(response.id), /404/);
    await assert.rejects(items(response.conversation.id, bob), /404/);
    assert.deepEqual(await texts(chat), ["mine", "1: mine"]);
  },
  async "a retry does not double"() {
    const chat = fresh("chat");
    let sent = 0;
    const lossy = new OpenAI({
      baseURL: `${world.url}/openai/v1`, apiKey: world.key, defaultHeaders: headers(),
      fetch: async (...request) => {
        const response = await fetch(...request);
        if (++sent === 1) throw new Error("the answer was lost");
        return response;
      },
    });
    const response = await lossy.responses.create({ model, conversation: chat, input: "once" });
    assert.deepEqual([sent, response.output_text], [2, "1: once"]);
    assert.deepEqual(await texts(chat), ["once", "1: once"]);
    sent = 0;
    const alone = await lossy.responses.create({ model, input: "alone" });
    assert.equal(alone.output_text, "1: alone");
  },
  async "the same ids in stream and history"() {
    const chat = fresh("chat");
    const added = [];
    for await (const event of await say(chat, "two", { stream: true }))
      if (event.type === "response.output_item.added") added.push(event.item.id);
    const kept = (await items(chat)).filter((item) => item.role === "assistant");
    assert.deepEqual(kept.map((item) => item.id), added);
  },
});

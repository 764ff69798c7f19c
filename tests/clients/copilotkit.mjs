// CopilotKit's core, as it is, over both of its transports.
import assert from "node:assert/strict";
import { CopilotKitCore } from "@copilotkit/core";
import { fresh, headers, run, until, world } from "./world.mjs";

globalThis.window ??= globalThis;

async function connected(runtimeTransport, threadId) {
  const runtimeUrl = `${world.url}/ag-ui`;
  const core = new CopilotKitCore({ runtimeUrl, runtimeTransport, headers: headers() });
  await until(() => core.runtimeConnectionStatus === "connected", "a connection");
  const agent = core.getAgent("default");
  agent.threadId = threadId;
  return { core, agent };
}

const texts = (agent) => agent.messages.map((one) => one.content);
const say = (agent, content) => agent.addMessage({ id: fresh("message"), role: "user", content });

async function talk(transport) {
  const id = fresh("thread");
  const { core, agent } = await connected(transport, id);
  say(agent, "hello");
  await core.runAgent({ agent });
  assert.deepEqual(texts(agent), ["hello", "1: hello"]);
  say(agent, "count 50");
  const running = core.runAgent({ agent });
  await until(() => (agent.messages.at(-1).content ?? "").startsWith("0 1 "), "some text");
  core.stopAgent({ agent });
  await running.catch(() => {});
  const later = await connected(transport, id);
  await until(async () => {
    await later.core.connectAgent({ agent: later.agent });
    return later.agent.messages.length === 4;
  }, "the thread");
  assert.match(texts(later.agent)[3], /^0 1 /);
  assert.doesNotMatch(texts(later.agent)[3], /49/);
}

await run({
  "run, stop and connect, a route each": () => talk("rest"),
  "the same by one route": () => talk("single"),
});

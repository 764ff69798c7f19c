// What the drivers of all clients share: the world that they are in, and how their results go back.
//
// The world is a JSON object in the first argument: `url` and `other` are two processes of one
// server, `cut` is the first one behind a line that the test can cut, `key` its API key.
// A driver asks the test for something by a line of JSON ({do: "kill"}), and gets a line back.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

export const world = JSON.parse(process.argv[2]);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function ask(what) {
  console.log(JSON.stringify({ do: what }));
  await lines.next();
}

export async function version(name) {
  const file = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(await readFile(file)).version;
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what, about) {
  for (let i = 0; i < 600; i++) {
    const found = await what();
    if (found) return found;
    await sleep(50);
  }
  assert.fail(`it did not happen: ${about}`);
}

export const headers = (owner = "ada") => ({
  Authorization: `Bearer ${world.key}`,
  "X-Turnwise-Owner": owner,
});

let count = 0;
export const fresh = (name) => `${name}-${process.pid}-${++count}`;

export const numbers = (n) => Array.from({ length: n }, (_, i) => `${i} `).join("");

// A page logs such a thing and lives on.
process.on("unhandledRejection", () => {});

export async function run(behaviours) {
  for (const [name, behave] of Object.entries(behaviours)) {
    let result = "yes";
    try {
      result = (await behave()) ?? "yes";
    } catch (error) {
      result = `no: ${error.stack ?? error}`;
    }
    console.log(JSON.stringify({ name, result }));
    await ask("revive");
  }
  process.exit(0);
}

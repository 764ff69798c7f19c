// The operator's view: asks once a second how everything is, as long as somebody looks at it.

import { Client } from "./turnwise.js";
import { chart } from "./charts.js";
import { SessionView } from "./session.js";
import { $, fill, list, seconds } from "./tables.js";

const KEY = "turnwise.admin";
let key = sessionStorage.getItem(KEY);
const client = new Client(new URL(".", document.baseURI).href, { auth: () => key });
const view = new SessionView(client, { closed: () => { location.hash = ""; look(); } });

const percent = (value) => (value === null || value === undefined ? "–" : seconds(value));

function figures({ running, turns, processes, points }) {
  const last = points.at(-1);
  const here = processes.filter(({ silent }) => !silent);
  const waiting = turns.reduce((sum, one) => sum + one.open - (one.status === "running"), 0);
  const room = here.reduce((sum, one) => sum + one.concurrency, 0);
  const all = [
    ["Running", processes.length ? running : "–", room ? `of ${room}` : ""],
    ["Waiting", waiting, "", waiting > 0 && room > 0 && running >= room],
    ["Turns a second", last.rate.toFixed(1)],
    ["Failures a second", last.failed.toFixed(1), "", last.failed > 0],
    ["Wait", percent(last.wait[0]), `p95: ${percent(last.wait[1])}`],
    ["First words", percent(last.first[0]), `p95: ${percent(last.first[1])}`],
    ["Whole turn", percent(last.took[0]), `p95: ${percent(last.took[1])}`],
    ["Readers", here.reduce((sum, one) => sum + one.streams, 0)],
  ];
  list($("figures"), all.map(([name, value, more, bad]) => [name, `${value}`, more, bad ? "bad" : ""]));
}

function pictures(points) {
  chart($("flow"), points, [["failed", ({ failed }) => failed, "bad"], ["ended", ({ rate }) => rate]]);
  chart($("load"), points, [["running", ({ running }) => running], ["waiting", ({ waiting }) => waiting, "second"]]);
  const of = (name) => (point) => point[name][1];
  chart($("times"), points, [["first words", of("first")], ["whole turn", of("took"), "second"]], seconds);
}

const open = (id) => ({ text: id, href: `#${encodeURIComponent(id)}` });

function tables({ at, turns, limit, failures, processes, store }) {
  const now = Date.parse(at);
  const age = (stamp) => seconds(Math.max(0, (now - Date.parse(stamp)) / 1000));
  const names = new Map(processes.map((one) => [one.worker, `${one.host} ${one.pid}`]));
  const running = turns.filter(({ status }) => status === "running").length;
  const waiting = turns.reduce((sum, one) => sum + one.open - (one.status === "running"), 0);
  document.querySelector("#turns-title .count").textContent = turns.length ? `${running} and ${waiting}` : "";
  fill($("turns"), ["", "Session", "Owner", "Turn", "Waiting", "Since", "Attempt", "Process"], turns.map((one) => [
    { text: one.status, className: `state ${one.status}` },
    { ...open(one.session), text: one.name || one.session, title: one.session },
    one.owner ?? "", `${one.n}`, one.open > 1 ? `${one.open - 1} more` : "",
    age(one.started_at ?? one.queued_at),
    { text: one.attempt > 1 ? `${one.attempt}` : "", className: "bad" },
    names.get(one.worker) ?? one.worker ?? "",
  ]), turns.length ? "" : "Nobody waits for an answer.");
  if (turns.length >= limit) document.querySelector("#turns-title .count").textContent += ", the first of them";
  fill($("failures"), ["When", "Session", "Turn", "Reason", ""], failures.map((one) => [
    { text: `${age(one.at)} ago`, title: one.at }, open(one.session), `${one.n}`,
    { text: one.error?.code ?? "", className: "bad" }, one.error?.message ?? "",
  ]), failures.length ? "" : "No turn has failed that is still kept.");
  fill($("processes"), ["", "Process", "Answers", "Readers", "Up for", "Version"], processes.map((one) => [
    { text: one.silent ? "silent" : one.stopping ? "stopping" : "here", className: `state ${one.silent ? "bad" : "running"}` },
    `${one.host} ${one.pid}`,
    one.worker ? `${one.running} of ${one.concurrency}` : "none: it only serves",
    `${one.streams}`, age(one.started_at), one.version,
  ]), processes.length ? "" : "They are being asked.");
  const owners = new Map();
  for (const { owner, open: count, status } of turns) {
    const sum = owners.get(owner) ?? [0, 0];
    owners.set(owner, [sum[0] + count, sum[1] + (status === "running")]);
  }
  const ranked = [...owners].filter(([owner]) => owner !== null).sort((a, b) => b[1][0] - a[1][0]).slice(0, 20);
  fill($("owners"), ["Owner", "Open", "Running"], ranked.map(([owner, [all, now]]) => [owner, `${all}`, `${now}`]),
    ranked.length ? "" : "None.");
  list($("store"), Object.entries(store));
}

let asking = false;
let timer = null;
async function look() {
  if (asking || document.hidden) return;
  asking = true;
  clearTimeout(timer);
  try {
    const found = await client.call("GET", "now");
    document.querySelector("main").hidden = false;
    state("Live");
    figures(found);
    pictures(found.points);
    tables(found);
  } catch (problem) {
    state(problem.status === 0 ? "The server cannot be reached" : problem.message, true);
    if (problem.status === 401 && key !== undefined) await askKey(problem);
  }
  asking = false;
  timer = setTimeout(look, 1000);
}

function state(text, bad = false) {
  $("state").textContent = text;
  $("state").className = bad ? "bad" : "live";
}

function askKey(problem) {
  $("key-text").textContent = key ? "This is not an admin key of this server." : problem.message;
  $("key-dialog").showModal();
  return new Promise((done) => {
    $("key-dialog").onclose = () => {
      key = $("key").value.trim();
      sessionStorage.setItem(KEY, key);
      $("key").value = "";
      done();
    };
  });
}

// Sessions: by the address, by an id, or by a part of their names.

function show() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (id) view.open(id);
  else view.close();
}

$("find").onsubmit = async (event) => {
  event.preventDefault();
  const wanted = $("wanted").value.trim();
  if (!wanted) { $("found").hidden = true; return; }
  try {
    await client.call("GET", `sessions/${encodeURIComponent(wanted)}`);
    location.hash = encodeURIComponent(wanted);
    return;
  } catch (problem) {
    if (problem.status !== 404 && problem.status !== 422) { state(problem.message, true); return; }
  }
  const { sessions, has_more } = await client.list({ q: wanted, limit: 50 });
  $("found").hidden = false;
  fill($("found").querySelector(".wide"), ["Session", "Owner", "Status", "Turns", "Id"], sessions.map((one) => [
    { ...open(one.id), text: one.name || one.id }, one.owner ?? "", { text: one.status, className: `state ${one.status}` }, `${one.turns}`, one.name ? one.id : "",
  ]), sessions.length ? (has_more ? "There are more: write more of the name." : "") : "No session has this id, or this in its name.");
};
$("wanted").oninput = () => { if (!$("wanted").value) $("found").hidden = true; };

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", look);
await look();
show();

// What a message asks for: buttons for choices, fields for a form. `answer(value)` sends the answer.

import { element } from "./screen.js";
import { t } from "./texts.js";

export function askFor(ask, answer) {
  const box = element("div", "ask");
  box.dataset.ask = ask.id;
  const once = (value) => {
    box.querySelectorAll("button, input, select").forEach((control) => { control.disabled = true; });
    answer(value);
  };
  if (ask.choices) box.append(...ask.choices.map((choice) => button(choice, () => once(choice))));
  else if (ask.kind === "form") box.append(form(Array.isArray(ask.data?.fields) ? ask.data.fields : [], once));
  else if (ask.kind === "tool") box.append(element("div", "meta", t("waits_for", { name: ask.name ?? "?" })));
  else box.append(form([{ name: "answer", label: t("your_answer") }], ({ answer: text }) => once(text)));
  return box;
}

// What was answered, as a person reads it.
export function told({ text, answers }) {
  if (text || !answers?.length) return text;
  return answers.map(({ value }) => (value !== null && typeof value === "object"
    ? Object.entries(value).map(([name, one]) => `${name}: ${one}`).join("\n") : String(value))).join("\n");
}

function button(label, press) {
  const made = element("button", "", label);
  made.type = "button";
  made.onclick = press;
  return made;
}

function form(fields, done) {
  const made = element("form");
  for (const field of fields) {
    const label = element("label", "", field.label ?? field.name);
    label.append(control(field));
    made.append(label);
  }
  const send = element("button", "", t("do_answer"));
  made.append(send);
  made.onsubmit = (event) => {
    event.preventDefault();
    done(Object.fromEntries(fields.map((field) => [field.name, valueOf(made.elements.namedItem(field.name), field)])));
  };
  return made;
}

function control({ name, type, choices, required }) {
  const made = element(choices ? "select" : "input");
  if (choices) made.append(...choices.map((choice) => element("option", "", choice)));
  else made.type = { number: "number", boolean: "checkbox", date: "date" }[type] ?? "text";
  if (type === "number") made.step = "any";
  made.name = name;
  made.required = required ?? (type !== "boolean");
  return made;
}

const valueOf = (input, { type }) => ({ number: () => (input.value === "" ? null : Number(input.value)), boolean: () => input.checked })[type]?.() ?? input.value;

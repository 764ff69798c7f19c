"use client";
// A chat that survives reloads and lost connections: what Next.js would serve as app/page.jsx.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { use, useMemo, useState } from "react";

const asked = new URLSearchParams(globalThis.location?.search);
const server = asked.get("server") ?? "http://127.0.0.1:8000";
const api = `${server}/ai-sdk/chat`;
const headers = { "x-ai-sdk-version": "7" };

const loads = new Map(); // a promise is read again until it is there, so it is made once
function load(id) {
  if (!loads.has(id))
    loads.set(id, fetch(`${api}/${id}/messages`, { headers }).then((found) => found.json()));
  return loads.get(id);
}

export default function Page({ id = "my-chat" }) {
  return <Conversation id={id} loaded={use(load(id))} />;
}

function Conversation({ id, loaded }) {
  const [text, setText] = useState("");
  const [edited, setEdited] = useState();
  const transport = useMemo(() => new DefaultChatTransport({ api, headers }), []);
  const chat = useChat({
    id,
    messages: loaded,
    transport,
    resume: true,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  const { messages, sendMessage, regenerate, addToolApprovalResponse, status, error } = chat;
  const busy = status === "submitted" || status === "streaming";
  const stop = () => fetch(`${api}/${id}/stop`, { method: "POST", headers });
  const send = (event) => {
    event.preventDefault();
    if (text.trim()) sendMessage({ text, messageId: edited });
    setText("");
    setEdited(undefined);
  };
  const edit = (message) => {
    setEdited(message.id);
    setText(message.parts.map((part) => part.text ?? "").join(""));
  };
  return (
    <main>
      {messages.map((message) => (
        <article key={message.id} className={message.role}>
          {message.parts.map((part, i) => (
            <Part key={i} part={part} approve={addToolApprovalResponse} />
          ))}
          {message.role === "user" && !busy && <button onClick={() => edit(message)}>Edit</button>}
        </article>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form onSubmit={send}>
        <input aria-label="Message" value={text} onChange={(e) => setText(e.target.value)} />
        <button>{edited ? "Save" : "Send"}</button>
        {busy && <button type="button" onClick={stop}>Stop</button>}
        {!busy && messages.length > 0 && (
          <button type="button" onClick={() => regenerate()}>Answer again</button>
        )}
      </form>
    </main>
  );
}

function Part({ part, approve }) {
  if (part.type === "text") return <p>{part.text}</p>;
  if (part.type === "reasoning") return <small>{part.text}</small>;
  if (part.type === "dynamic-tool") return <code>{part.toolName}</code>;
  if (part.state === "approval-requested")
    return ["yes", "no"].map((word) => (
      <button
        key={word}
        onClick={() => approve({ id: part.approval.id, approved: word === "yes" })}
      >
        {word}
      </button>
    ));
  return null;
}

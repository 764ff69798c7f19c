// A chat bubble for any page: <script src="https://chat.example.com/widget.js" data-color="#0a7"></script>
//
// The chat is an iframe of the server's own page, so it sees nothing of the page around it, and that page
// nothing of the chat. data-color, data-side ("left" or "right"), data-label, data-open, data-theme ("light" or "dark").
{
  const script = document.currentScript;
  const { color = "#4f46e5", side = "right", label = "Chat", open, theme } = script.dataset;
  const [CLOSED, OPEN] = ["M4 5h16v11H9l-5 4z", "M6 6l12 12M18 6L6 18"];
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    :host { all: initial; }
    button { position: fixed; z-index: 2147483000; bottom: 1.25rem; ${side === "left" ? "left" : "right"}: 1.25rem; width: 3.5rem; height: 3.5rem;
      border: 0; border-radius: 50%; background: ${color}; color: #fff; cursor: pointer; box-shadow: 0 6px 24px rgb(0 0 0 / 25%); }
    button:focus-visible { outline: 3px solid ${color}; outline-offset: 3px; }
    svg { width: 1.6rem; height: 1.6rem; fill: none; stroke: currentcolor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
    iframe { position: fixed; z-index: 2147483000; bottom: 5.5rem; ${side === "left" ? "left" : "right"}: 1.25rem; width: min(24rem, calc(100vw - 2.5rem));
      height: min(38rem, calc(100dvh - 7rem)); border: 0; border-radius: 1rem; background: #fff; box-shadow: 0 8px 40px rgb(0 0 0 / 25%); color-scheme: normal; }
    iframe[hidden] { display: none; }
    @media (max-width: 30rem) { iframe { inset: 0 0 auto; width: 100%; height: calc(100dvh - 5.5rem); border-radius: 0; } }`);
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [sheet];
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-expanded", "false");
  button.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path/></svg>';
  button.querySelector("path").setAttribute("d", CLOSED);
  let frame = null;
  const toggle = () => {
    if (!frame) { // nothing is loaded until somebody wants to talk
      frame = Object.assign(document.createElement("iframe"), { src: new URL(`embedded${theme ? `?theme=${encodeURIComponent(theme)}` : ""}`, script.src).href, title: label, hidden: true });
      frame.allow = "clipboard-write";
      root.append(frame);
    }
    frame.hidden = !frame.hidden;
    button.setAttribute("aria-expanded", String(!frame.hidden));
    button.querySelector("path").setAttribute("d", frame.hidden ? CLOSED : OPEN);
    if (!frame.hidden) frame.focus();
  };
  button.onclick = toggle;
  root.append(button);
  const begin = () => { document.body.append(host); if (open !== undefined) toggle(); };
  if (document.body) begin();
  else addEventListener("DOMContentLoaded", begin);
}

// An answer while it streams. Whole blocks are rendered once, by the server; the block that still
// grows is plain text behind them. What is drawn is not drawn again, so a selection survives and
// the traffic is in proportion to the answer.

import { element, whenNotSelected } from "./screen.js";
import { copyButtons } from "./tools.js";

// Where the first whole block of a text ends: at an empty line that is not inside a fence of code.
export function blockEnd(text) {
  let fence = null;
  let start = 0;
  for (;;) {
    const end = text.indexOf("\n", start);
    if (end < 0) return 0;
    const line = text.slice(start, end).trim();
    const mark = /^(`{3,}|~{3,})/.exec(line)?.[1];
    if (mark && !fence) fence = mark;
    else if (fence && line.startsWith(fence) && !line.slice(fence.length).trim()) fence = null;
    else if (!line && !fence && text.slice(0, start).trim()) return end + 1;
    start = end + 1;
  }
}

export class Growing {
  constructor(bubble, markdown) {
    this.bubble = bubble;
    this.markdown = markdown;
    this.rest = "";
    this.tail = null;
  }

  add(text) {
    if (!this.tail) {
      this.bubble.replaceChildren();
      this.grow();
    }
    this.rest += text;
    this.tail.append(text);
    for (let end; (end = blockEnd(this.rest));) this.close(end);
  }

  // Nothing more comes: what is left is a block too.
  finish() {
    if (this.rest.trim()) this.close(this.rest.length);
  }

  grow() {
    this.tail = element("div", "block plain");
    this.tail.dir = "auto";
    this.bubble.append(this.tail);
  }

  // The tail's first `end` characters are a whole block: it stays where it is, the rest moves on.
  close(end) {
    const block = this.tail;
    const text = this.rest.slice(0, end);
    this.rest = this.rest.slice(end);
    this.grow();
    let left = end;
    for (const node of [...block.childNodes]) {
      if (left >= node.length) left -= node.length;
      else {
        this.tail.append(left > 0 ? node.splitText(left) : node);
        left = 0;
      }
    }
    this.markdown.render(text, (html) => whenNotSelected(block, () => {
      block.innerHTML = html;
      block.classList.remove("plain");
      copyButtons(block);
    }));
  }
}

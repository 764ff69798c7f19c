// The server of this page.

import { Client } from "./turnwise.js";

let key = null;
export const useKey = (given) => { key = given; };

/** The routes are beside the page, wherever it is. */
export const client = new Client(new URL(".", document.baseURI).href, { auth: () => key });
export const about = () => client.call("GET", "page/about");
export const render = (session, texts) =>
  client.call("POST", "page/render", { token: session.token, body: { texts } }).then(({ html }) => html);

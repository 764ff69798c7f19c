"""A support chat with your own login: uvicorn support_chat:app, then http://127.0.0.1:8000/."""

import jwt
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import HTTPConnection

import turnwise
from turnwise import Bot, Runtime

SECRET = "the key of your own login, which you keep outside of the code"
LOGIN = "<form action=/login><input name=user placeholder=Name><button>Log in</button></form>"
PAGE = """<!doctype html><title>Support</title><h1>Support for %s</h1><a href=/logout>Log out</a>
<ul id=questions></ul><ol id=talk></ol>
<form><input name=text placeholder=Message><button>Send</button></form><script>let id = null;
const call = async (path, body) => (await fetch(`chat/sessions${path}`, body && { method: "POST",
  headers: { "Content-Type": "application/json", Prefer: "wait=30" }, body: JSON.stringify(body),
})).json();
const draw = (place, texts, press) => place.replaceChildren(...texts.map((text, i) =>
  Object.assign(document.createElement("li"), { textContent: text, onclick: () => press?.(i) })));
const list = async () => { const { sessions } = await call("");
  draw(questions, sessions.map((one) => one.name), (i) => { id = sessions[i].id; show(); }); };
const show = async () =>
  draw(talk, (await call(`/${id}/messages`)).messages.map((one) => one.text));
document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  const [{ value: text }] = event.target;
  event.target.reset();
  id ??= (await call("", { name: text })).id;
  await call(`/${id}/turns`, { text });
  await Promise.all([show(), list()]);
};
list();</script>"""


def authorize(connection: HTTPConnection, session_id: str | None = None) -> str | bool:
    """The owner whose sessions this connection may use: who is logged in, by a cookie."""
    try:
        return str(jwt.decode(connection.cookies["login"], SECRET, algorithms=["HS256"])["sub"])
    except (KeyError, jwt.PyJWTError):
        return False


runtime = Runtime(Bot(lambda turn: f"We look into this, {turn.session.owner}: {turn.text}"))
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime, authorize=authorize), prefix="/chat")


@app.get("/", response_class=HTMLResponse)
async def page(request: Request) -> str:
    return PAGE % user if (user := authorize(request)) else LOGIN


@app.get("/login")
@app.get("/logout")
async def log(user: str = "") -> RedirectResponse:  # here you check the password
    response = RedirectResponse("/")
    token = jwt.encode({"sub": user}, SECRET, "HS256") if user.isalnum() else ""
    response.set_cookie("login", token, httponly=True, samesite="strict")
    return response

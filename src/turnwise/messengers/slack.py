"""Slack: a bot on Slack, called by Slack's Events API.

    slack = Slack(token, signing_secret)
    app.include_router(slack_webhook(runtime, slack))    # POST /webhooks/slack

Direct messages are the session `slack:<team>:<channel>`; when the bot is mentioned it answers in
a thread, and each thread is a separate session. Needs the extra: pip install 'turnwise[slack]'.
"""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import ConfigurationError, MissingExtra
from turnwise.messengers.courier import ChooseSession, Courier, HasGateway, Platform, Update

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp

LONGEST_TEXT = 4000
"""Maximum characters of a message that Slack shows without truncation."""
_MENTION = re.compile(r"<@[A-Z0-9]+>\s*")
_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class RateLimited(Exception):
    """Slack asks the client to wait `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"in {retry_after} s")
        self.retry_after = retry_after


class Slack(Platform):
    """A bot in a workspace. `token` is the bot's (xoxb-...); `api` another server than Slack's."""

    name = "slack"

    def __init__(self, token: str, signing_secret: str, *, api: str | None = None) -> None:
        try:
            from slack_bolt.async_app import AsyncApp
            from slack_sdk.web.async_client import AsyncWebClient
        except ImportError:
            raise MissingExtra("Slack", "slack") from None
        if not token or not signing_secret:
            raise ConfigurationError("Slack needs the bot's token and the app's signing secret.")
        options: dict[str, Any] = {"base_url": f"{api.rstrip('/')}/"} if api else {}
        self._client = AsyncWebClient(token, **options)
        self.app: AsyncApp = AsyncApp(
            client=self._client,
            signing_secret=signing_secret,
            process_before_response=True,  # acknowledged when it is stored
        )

    def update(self, body: dict[str, Any]) -> Update | None:
        """The message in an event; None if it contains no message to the bot."""
        event = body["event"]
        spoken = event.get("subtype") in (None, "file_share") and not event.get("bot_id")
        direct = event.get("channel_type") == "im"
        if not spoken or not (direct or event["type"] == "app_mention"):
            return None
        text = unescape(_MENTION.sub("", event.get("text") or "")).strip()
        attachments = [
            Attachment(one["mimetype"], one["url_private"], one.get("name"), one.get("size"))
            for one in event.get("files") or ()
            if one.get("mimetype") and one.get("url_private")
        ]
        if not text and not attachments:
            return None
        session = f"slack:{body['team_id']}:{event['channel']}"
        thread = event.get("thread_ts")
        if not direct:
            thread = thread or event["ts"]
            session = f"{session}:{thread}"
        return Update(
            id=body["event_id"],
            session=session,
            text=text,
            to=(event["channel"], thread),
            attachments=attachments,
            metadata={"from": event.get("user")},
        )

    async def send(self, update: Update, message: Message) -> None:
        """Send a message of the reply to where the question came from; a long one in pieces."""
        texts = [
            message.text[start : start + LONGEST_TEXT].translate(_AS_TEXT)
            for start in range(0, len(message.text), LONGEST_TEXT)
        ]
        links = [f"<{one.url}|{one.name or one.type}>" for one in message.attachments]
        for text in texts + links:
            await self._post(update, text)

    async def _post(self, update: Update, text: str) -> None:
        from slack_sdk.errors import SlackApiError

        channel, thread = update.to
        try:
            await self._client.chat_postMessage(channel=channel, thread_ts=thread, text=text)
        except SlackApiError as error:
            if error.response.status_code == 429:
                wait = error.response.headers.get("Retry-After", "1")
                raise RateLimited(float(wait)) from None
            raise


def slack_webhook(
    runtime: HasGateway, slack: Slack, *, session: ChooseSession | None = None
) -> APIRouter:
    """A route for a FastAPI application that Slack calls: POST /webhooks/slack.

    It is the Request URL of the app's event subscriptions `message.im` and `app_mention`. Requests
    that Slack has not signed are refused; an event is acknowledged when it is stored, and repeated
    deliveries are recognised by their id. `session(update)` chooses the session.
    """
    from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler

    courier = Courier(runtime, slack, session=session)
    handler = AsyncSlackRequestHandler(slack.app)
    routes = APIRouter(route_class=ProblemRoute, tags=["messengers"], lifespan=courier.lifespan)

    async def take(body: dict[str, Any]) -> None:
        update = slack.update(body)
        if update is not None:
            await courier.take(update)

    slack.app.event("message")(take)
    slack.app.event("app_mention")(take)

    @routes.post("/webhooks/slack", response_class=Response)
    async def webhook(request: Request) -> Response:
        """Accept an event; the reply is sent when it is ready."""
        return await handler.handle(request)

    return routes

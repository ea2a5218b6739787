"""One WebSocket that Asterisk opened for one call: its events, and REST requests on the same socket.

The other direction of ``ari/client.py``: Asterisk's "REST over WebSocket" and outbound WebSockets
(``res/ari/ari_websockets.c``, 22.5 and later). Requests are ``RESTRequest`` messages, answers
``RESTResponse``, matched by ``request_id``. Asterisk carries out one link's requests one after another:
what is asked while a channel plays digits waits until they are played.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import structlog
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

from ari_gemini.ari.events import Event, EventParser
from ari_gemini.ari.operations import locate
from ari_gemini.ari.requests import Requests
from ari_gemini.ari.transport import Reply, status_error
from ari_gemini.errors import AriTimeout, AriUnavailable

log = structlog.get_logger(__name__)

REGISTERED = "ApplicationRegistered"
"""The first message of a link, which names the application."""

SUBSCRIPTIONS = 2
"""Of an application to a media channel: by ``externalMedia`` and by its StasisStart (Asterisk 22.10.1)."""


class AriLink(Requests):
    """One call's connection. Its application is the caller's alone: ``ari-gemini:PJSIP/trunk-00000001``.

    ``on_event`` gets every event in the order of their arrival and must only enqueue; ``on_closed`` is called
    once, when the connection is over. Both are set by whoever takes the link, before anything more is read.
    """

    def __init__(self, connection: Connection, app: str, request_timeout: float) -> None:
        self.parser = EventParser()
        """Counts the messages it left out."""
        self.unmatched = 0
        """Answers that nobody waits for any more, or never did."""
        self.handler_errors = 0
        """Handlers that raised: defects, each one logged."""
        self.on_event: Callable[[Event], None] = _nobody
        self.on_closed: Callable[[], None] = _nothing
        self._app = app
        self._connection = connection
        self._limit = request_timeout
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        """By request_id. As many as the call has under way: every one of them ends within the limit."""
        self._closed = False

    @property
    def app(self) -> str:
        """The caller's own application; a channel that named another would get a connection of its own."""
        return self._app

    @property
    def channel_name(self) -> str:
        """The name of the caller's channel, ``PJSIP/trunk-00000001``."""
        return self._app.partition(":")[2]

    @property
    def request_timeout(self) -> float:
        """How long one request may take, s."""
        return self._limit

    @property
    def connected(self) -> bool:
        """False once the connection is over, or ends."""
        return not self._closed

    async def request(self, resource: str, nickname: str, **params: str | int | None) -> object:
        """Run an operation; return the decoded JSON, None for an empty answer. Raises AriError."""
        given = {name: value for name, value in params.items() if value is not None}
        method, uri = locate(resource, nickname, given)
        about = given.get("channelId") or given.get("bridgeId")  # no more: digits and variables are private
        log.debug("> ari request", operation=f"{resource}.{nickname}", about=about)
        what = f"{method} {uri.partition('?')[0]}"
        reply = await self._ask(what, method, uri)
        if reply.status >= 300:
            raise status_error(what, reply.status, reply.message())
        return reply.json()

    async def ignore(self, kinds: Sequence[str]) -> None:
        """Have Asterisk leave out events of these types for this application. Raises AriError."""
        method, uri = locate("applications", "filter", {"applicationName": self._app})
        what, unwanted = f"{method} {uri}", json.dumps({"disallowed": [{"type": kind} for kind in kinds]})
        reply = await self._ask(what, method, uri, content_type="application/json", message_body=unwanted)
        if reply.status >= 300:
            raise status_error(what, reply.status, reply.message())

    async def unsubscribe(self, channel_id: str) -> None:
        """Have Asterisk tell no more of a channel in this application, but for its StasisEnd.

        The application subscribed once when it made the channel and once when that entered, and Asterisk
        counts (``res/stasis/app.c``). Raises AriError.
        """
        sources = ",".join([f"channel:{channel_id}"] * SUBSCRIPTIONS)
        await self.request("applications", "unsubscribe", applicationName=self._app, eventSource=sources)

    async def _ask(self, what: str, method: str, uri: str, **body: str) -> Reply:
        if self._closed:
            raise AriUnavailable(f"{what}: the call's connection is closed")
        number = str(next(self._numbers))
        # the transaction is the request: Asterisk gives both back and looks at neither
        numbers = {"transaction_id": number, "request_id": number}
        message = json.dumps({"type": "RESTRequest", **numbers, "method": method, "uri": uri, **body})
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(self._limit):
                await self._connection.send(message)
                return await answer
        except TimeoutError:
            raise AriTimeout(f"{what}: no answer within {self._limit:g} s") from None
        except ConnectionClosed:
            raise AriUnavailable(f"{what}: the call's connection is closed") from None
        finally:
            self._waiting.pop(number, None)

    async def run(self, first: str | bytes) -> None:
        """Pass messages on until the connection is over, ``first`` first, which was read already.

        Cancelling ends the reading; whoever serves the connection closes it.
        """
        try:
            self._take(first)
            async for message in self._connection:
                self._take(message)
        except ConnectionClosed:
            pass  # without a close frame; it is over all the same
        finally:
            self._over()

    async def close(self, code: int = 1001) -> None:
        """Close it, so that Asterisk connects anew if its caller is there still. Idempotent; never raises.

        From now on nothing is asked here and no event passed on. Takes at most the time that a peer has for
        its close frame.
        """
        self.on_event = _nobody
        self._over()
        await self._connection.close(code)

    def abort(self) -> None:
        """Cut it off without a word, as a network does."""
        self._connection.transport.abort()

    def _over(self) -> None:
        if self._closed:
            return
        self._closed = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(AriUnavailable("the call's connection was closed"))
        self._call(self.on_closed)

    def _take(self, message: str | bytes) -> None:
        raw = decode(message)
        if isinstance(raw, Mapping) and raw.get("type") == "RESTResponse":
            self._answered(raw)
            return
        if isinstance(raw, Mapping) and raw.get("type") == REGISTERED:
            if raw.get("application") != self._app:
                self.parser.malformed += 1
            return  # said once more: nothing new
        event = self.parser.parse(raw)
        if event is not None:
            self._call(self.on_event, event)

    def _answered(self, raw: Mapping[str, object]) -> None:
        number, status, body = raw.get("request_id"), raw.get("status_code"), raw.get("message_body", "")
        if not isinstance(status, int) or isinstance(status, bool) or not isinstance(body, str):
            self.parser.malformed += 1
            return
        answer = self._waiting.get(number) if isinstance(number, str) else None
        if answer is None or answer.done():
            self.unmatched += 1
            return
        answer.set_result(Reply(status, body.encode("utf-8", "replace")))

    def _call(self, handler: Callable[..., None], *args: object) -> None:
        try:
            handler(*args)
        except Exception:  # a defect elsewhere must not end the connection: it is all that holds the call
            self.handler_errors += 1
            log.exception("! handler failed")


def decode(message: str | bytes) -> object:
    """The JSON of a text message; None, which is no event, for anything else."""
    if isinstance(message, bytes):
        return None
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None


def _nobody(event: Event) -> None:
    """Before anybody has taken the link, and after it was closed."""


def _nothing() -> None:
    """The same."""

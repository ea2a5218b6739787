"""ARI requests and events over aioari: one connection for events, kept up for ever, and typed requests.

aioari's own event loop is not used: it ends at the first message that is not JSON, never reconnects, and
awaits one handler before the next. Its API description and operations are (see ``transport.py`` for what is
under them).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import aiohttp
import structlog

from ari_gemini.ari.events import ApplicationReplaced, Event, EventParser
from ari_gemini.ari.requests import Requests
from ari_gemini.ari.settings import AriSettings
from ari_gemini.ari.transport import Api, Operation, Transport, load_api
from ari_gemini.errors import AriError, AriTimeout, AriUnavailable

log = structlog.get_logger(__name__)

EventHandler = Callable[[Event], None]
"""Must only enqueue: every call's events wait for it."""
Unsubscribe = Callable[[], None]

Handler = TypeVar("Handler")


def reconnect_pause(attempt: int, low: float, high: float, jitter: float) -> float:
    """Seconds to wait before attempt number ``attempt`` (from 0): doubling from ``low`` up to ``high``.

    ``jitter`` in [0, 1) takes off up to half of it, so that many services do not knock at the same moment.
    """
    ceiling = min(high, low * 2.0 ** min(attempt, 32))
    return ceiling * (1.0 - jitter / 2.0)


class AriClient(Requests):
    """One Asterisk. Run :meth:`run` in a task of its own; ask through the other methods from anywhere.

    Requests do not wait for one another, nor for the event connection: they work as soon as Asterisk's API
    description is there, and fail with AriUnavailable before. Every one raises AriError (AriTimeout after
    ``settings.request_timeout``), and cancelling one leaves open whether Asterisk acted.
    """

    def __init__(self, settings: AriSettings) -> None:
        self.settings = settings
        self.parser = EventParser()
        """Counts the events it left out."""
        self.handler_errors = 0
        """Handlers that raised: defects, each one logged."""
        self._transport: Transport | None = None
        self._api: Api | None = None
        self._up = asyncio.Event()
        self._attempt = 0
        self._trouble: str | None = None
        self._on_event: list[EventHandler] = []
        self._on_up: list[Callable[[], None]] = []
        self._on_down: list[Callable[[str], None]] = []

    @property
    def app(self) -> str:
        """The application named in the configuration."""
        return self.settings.app

    @property
    def request_timeout(self) -> float:
        """How long one request may take, s."""
        return self.settings.request_timeout

    # -- who wants to know ---------------------------------------------------------------------------------

    def on_event(self, handler: EventHandler) -> Unsubscribe:
        """Call ``handler`` with every event, in the order of their arrival. It must only enqueue."""
        return _subscribe(self._on_event, handler)

    def on_up(self, callback: Callable[[], None]) -> Unsubscribe:
        """Call ``callback`` whenever events begin to flow. What came before is lost: look at the channels."""
        return _subscribe(self._on_up, callback)

    def on_down(self, callback: Callable[[str], None]) -> Unsubscribe:
        """Call ``callback`` with the reason whenever events cease to flow."""
        return _subscribe(self._on_down, callback)

    @property
    def connected(self) -> bool:
        """True while events flow."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Wait until events flow. Cancelling loses nothing."""
        await self._up.wait()

    # -- lifetime ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Download Asterisk's API description, once, so that requests work; :meth:`run` does it too.

        Kept over reconnects: between versions of Asterisk operations and parameters are only added.

        Raises ConfigError without a password, AriDenied, AriUnavailable, AriTimeout, or
        AriRejected/AriNotFound when what answers there is not ARI. After a failure, call again or close.
        """
        if self._transport is None:
            self._transport = Transport(self.settings)
        if self._api is None:
            self._api = await load_api(self.settings.url, self._transport)

    async def close(self) -> None:
        """Close everything. Idempotent; :meth:`run` does it at its end."""
        transport, self._transport, self._api = self._transport, None, None
        if transport is not None:
            await transport.close()

    async def __aenter__(self) -> AriClient:
        try:
            await self.open()
        except BaseException:  # whatever it is, cancelling included: nothing stays open, and it goes on
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self) -> NoReturn:
        """Connect, pass events on, connect again, for ever. Cancelling closes everything.

        Raises only ConfigError (no password). What goes wrong is logged when it begins and when it is over.
        """
        try:
            while True:
                try:
                    await self.open()
                    await self._listen()
                except AriError as error:
                    self._say_trouble(error)
                pause = reconnect_pause(
                    self._attempt, self.settings.reconnect_min, self.settings.reconnect_max, random.random()
                )
                self._attempt += 1
                await asyncio.sleep(pause)
        finally:
            self._go_down("stopped")
            await self.close()

    async def _listen(self) -> None:
        """One event connection, from its opening to its end. Raises AriError when there is none to be had."""
        now = asyncio.get_running_loop().time
        socket = await self._operation("events", "eventWebsocket").open_socket({"app": self.settings.app})
        since = now()
        try:
            self._go_up()
            replaced = await self._read(socket)
        finally:
            self._go_down("event connection ended")
            await socket.close()
        if now() - since > self.settings.reconnect_max:
            self._attempt = 0  # not reset at once: one that is accepted and dropped again is no recovery
        if replaced:
            await self._wait_for_vacancy()
        else:
            raise AriUnavailable(f"event connection closed by Asterisk (code {socket.close_code})")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Pass events on until the connection ends. True when another client took our application."""
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                self.parser.malformed += 1
                continue
            event = self._decode(message.data)
            if event is None:
                continue
            log.debug("< ari event", kind=type(event).__name__, about=_subject(event))
            self._tell(self._on_event, event)
            if isinstance(event, ApplicationReplaced) and event.application == self.settings.app:
                self._go_down("another client took the application")
                return True
        return False

    def _decode(self, text: str) -> Event | None:
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raw = None  # counted by the parser as malformed
        return self.parser.parse(raw)

    async def _wait_for_vacancy(self) -> None:
        """Wait until the other client is gone. Taking the name back at once would only begin a tug of war."""
        log.error("! another client took our ARI application: no calls arrive here", app=self.settings.app)
        self._trouble = "replaced"
        while True:
            await asyncio.sleep(self.settings.reconnect_max)
            try:
                await self.application(self.settings.app)
            except AriTimeout:
                continue
            except AriError:
                return  # nobody has it any more, or Asterisk restarted: both mean to connect again

    # -- saying it once ------------------------------------------------------------------------------------

    def _go_up(self) -> None:
        if self._trouble is None:
            log.info("= ari connected", url=self.settings.url, app=self.settings.app)
        else:
            log.info("= ari is back", url=self.settings.url, app=self.settings.app)
        self._trouble = None
        self._up.set()
        self._tell(self._on_up)

    def _go_down(self, reason: str) -> None:
        if self._up.is_set():
            self._up.clear()
            self._tell(self._on_down, reason)

    def _say_trouble(self, error: AriError) -> None:
        kind = type(error).__name__
        if kind == self._trouble:
            log.debug("! ari still unavailable", error=str(error))
            return
        self._trouble = kind
        log.warning("! ari unavailable, will keep trying", url=self.settings.url, kind=kind, error=str(error))

    def _tell(self, handlers: Sequence[Callable[..., None]], *args: object) -> None:
        for handler in tuple(handlers):
            try:
                handler(*args)
            except Exception:  # one room's defect must not cost every other call its events
                self.handler_errors += 1
                log.exception("! handler failed")

    # -- requests ------------------------------------------------------------------------------------------

    def _operation(self, resource: str, nickname: str) -> Operation:
        if self._api is None:
            raise AriUnavailable(f"{resource}.{nickname}: not connected to {self.settings.url} yet")
        return self._api.operation(resource, nickname)

    async def request(self, resource: str, nickname: str, **params: str | int | None) -> object:
        """Run an operation of Asterisk's API description; return the decoded JSON, None for an empty answer.

        Parameters that are None are left out. Raises AriError.
        """
        given = {name: value for name, value in params.items() if value is not None}
        operation = self._operation(resource, nickname)
        about = given.get("channelId") or given.get("bridgeId")  # no more: digits and variables are private
        log.debug("> ari request", operation=f"{resource}.{nickname}", about=about)
        return (await operation(given)).json()


def _subscribe(handlers: list[Handler], handler: Handler) -> Unsubscribe:
    handlers.append(handler)

    def unsubscribe() -> None:
        if handler in handlers:
            handlers.remove(handler)

    return unsubscribe


def _subject(event: Event) -> str:
    return event.application if isinstance(event, ApplicationReplaced) else event.channel.id

"""The composition root: builds the rooms from the configuration and connects them.

Everything lives in one TaskGroup: the ARI client, one task per call. A call's own failure stays its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from ari_gemini.ari.client import AriClient
from ari_gemini.ari.outbound import STRANGERS
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audiosocket.connection import Connection
from ari_gemini.audiosocket.descriptors import room_for
from ari_gemini.audiosocket.server import Address, AudioSocketServer
from ari_gemini.call.call import Call, CallObserver
from ari_gemini.call.dialplan import DialplanLeg, SharedListing
from ari_gemini.call.drain import Drain
from ari_gemini.call.leg import Leg
from ari_gemini.call.outbound import OutboundWay
from ari_gemini.call.records import Records
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis import StasisWay
from ari_gemini.config import Config
from ari_gemini.errors import Cause
from ari_gemini.gemini.session import open_session
from ari_gemini.gemini.tokens import token_source
from ari_gemini.realtime.session import OpenSession
from ari_gemini.state.record import fingerprint
from ari_gemini.state.settings import open_store
from ari_gemini.state.sweeper import period_for, sweep_regularly
from ari_gemini.web import systemd
from ari_gemini.web.health import HealthServer, Readiness

log = structlog.get_logger(__name__)

CHECK_UUID = UUID("df9c6ba7-ff79-42c6-8e58-d5e4e7f659b2")
"""What ``ari-gemini check`` calls itself when it has Asterisk dial this service: no call begins."""

STOP_SECONDS = 15.0
"""How long a stopping service waits until its calls are sent on and cleaned up: several requests of 3 s."""
SPARE_SECONDS = 10.0
"""What a supervisor should give beyond that before it kills: the last connections and tools are closed."""


class Service:
    """The whole service. ``run`` it in a task; ``drain`` and ``stop`` end it from the outside."""

    def __init__(
        self,
        config: Config,
        *,
        observer: CallObserver | None = None,
        sessions: OpenSession | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.registry = Registry(config.calls.max_calls)
        most = 2 * config.calls.max_calls + config.audiosocket.max_unidentified
        self.media = AudioSocketServer(config.audiosocket, self._connected, most)
        self.health = HealthServer(config.health, lambda: self.readiness)
        self.client: AriClient | None = None
        if config.ari is not None and config.ari.mode == "classic":
            self.client = AriClient(config.ari)
        self.catalogue = config.catalogue(environ or {})
        self._environ = environ or {}
        self._listing = SharedListing(self.client) if self.client is not None else None
        self._observer = observer
        self._store = open_store(config.state, environ or {})
        model = fingerprint(config.gemini.base_url, config.gemini.api_version, config.gemini.model)
        self._records = Records(self._store, model)
        self._tokens = token_source(config.gemini)
        self._sessions = sessions or partial(open_session, config.gemini, tokens=self._tokens)
        self._stasis: StasisWay | None = None
        self.outbound: OutboundWay | None = None
        """Way A where Asterisk connects to this service, once per call."""
        self._tasks = asyncio.TaskGroup()
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._control: list[asyncio.Task[None]] = []
        self._drain = Drain(config.drain, lambda: len(self.registry.calls))
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Serve until ``drain`` or ``stop``; then every call is ended and cleaned up, within STOP_SECONDS.

        Raises ConfigError when an address cannot be had. Cancelling does the same before it goes on;
        cancelling once more cuts the clean-up short.
        """
        _warm_up()
        outbound_room = self._make_room()
        try:
            await self.media.start()
            await self.health.start()
            await self._start_outbound(*outbound_room)
            async with self._tasks:
                self._start_control()
                self._control.append(self._tasks.create_task(self.catalogue.run(), name="tools"))
                alive = systemd.stay_alive(self._environ)
                self._control.append(self._tasks.create_task(alive, name="watchdog"))
                sweeping = sweep_regularly(self._store, period_for(self.config.state.lifetime))
                self._control.append(self._tasks.create_task(sweeping, name="state sweep"))
                self._listening.set()
                systemd.notify(self._environ, "READY=1")
                try:
                    if await self._drain.wait_over():
                        await self._hand_over()
                finally:
                    # before the TaskGroup cancels anything: to send callers on takes Asterisk control
                    await self._end_calls()
                    if self.outbound is not None:
                        await self.outbound.close()
                    for task in self._control:
                        task.cancel()
        finally:
            await self.health.close()
            await self.media.close()
            await self._store.close()
            if self._tokens is not None:
                await self._tokens.close()

    async def wait_listening(self) -> Address:
        """Wait until media connections are taken; returns where. For ARI see ``client.wait_connected``."""
        await self._listening.wait()
        return self.media.address

    def drain(self) -> None:
        """Take no new calls, let those in progress end for ``drain.timeout``, then ``stop``; where Asterisk
        connects to this service, who is left goes to another one instead. Said again, it is ``stop``. May be
        called from a signal handler, any number of times."""
        self._tell_stopping()
        self._drain.begin()
        if self.outbound is not None:
            self.outbound.listener.stop_accepting()

    def stop(self) -> None:
        """End every call and then ``run``. May be called from a signal handler, any number of times."""
        self._tell_stopping()
        self._drain.end()

    @property
    def calls(self) -> int:
        """Calls in progress, those being cleaned up included."""
        return len(self._calls)

    @property
    def readiness(self) -> Readiness:
        """Whether the next caller would be taken."""
        return Readiness(
            listening=self._listening.is_set(),
            ari_connected=self.client.connected if self.client is not None else None,
            draining=self._drain.begun,
            calls=len(self.registry.calls),
            max_calls=self.registry.max_calls,
        )

    def _tell_stopping(self) -> None:
        if not self._drain.begun:
            seconds = self.config.drain.timeout + STOP_SECONDS + SPARE_SECONDS
            systemd.notify(self._environ, *systemd.stopping(seconds))

    # -- calls ---------------------------------------------------------------------------------------------

    def _make_room(self) -> list[int]:
        """Have descriptors for every door; how many links and strangers Asterisk's outbound one may have."""
        ari, calls = self.config.ari, self.config.calls.max_calls
        doors = (ari.max_connections, STRANGERS) if ari is not None and ari.mode == "outbound" else ()
        self.media.max_connections, *outbound_room = room_for(calls, self.media.max_connections, *doors)
        return outbound_room

    async def _start_outbound(self, links: int = 0, strangers: int = 0) -> None:
        if self.config.ari is None or self.config.ari.mode != "outbound":
            return
        self.outbound = OutboundWay(
            self.config.ari,
            self.registry,
            start_call=self._start_call,
            answer_at_once=self.config.calls.answer == "immediately",
            media_address=str(self.media.advertised),
            spawn=self._spawn,
        )
        listener = self.outbound.listener
        listener.max_connections, listener.max_strangers = links, strangers
        await self.outbound.start()

    def _start_control(self) -> None:
        client, config = self.client, self.config
        if client is None:
            return
        self._stasis = stasis = StasisWay(
            client,
            self.registry,
            start_call=self._start_call,
            answer_at_once=config.calls.answer == "immediately",
            media_address=str(self.media.advertised),
            spawn=self._spawn,
        )
        client.on_event(stasis.on_event)
        client.on_up(lambda: self._spawn(stasis.reconcile()))
        self._control = [
            self._tasks.create_task(client.run(), name="ari"),
            self._tasks.create_task(stasis.watch(), name="ari watch"),
        ]

    def _connected(self, connection: Connection) -> None:
        if self.registry.deliver(connection):
            self.media.recognise(connection)
            return
        if (refusal := self._drain.refusal) is not None:
            connection.refuse(refusal.value)
            return
        if connection.uuid == CHECK_UUID:
            connection.refuse("a check")
            return
        verify = self.config.audiosocket.verify == "ari"
        self._start_call(DialplanLeg(connection, self.client, verify=verify, listing=self._listing))

    def _start_call(self, leg: Leg) -> None:
        call = Call(
            leg,
            settings=self.config.calls,
            agents=self.config.agents,
            open_session=self._sessions,
            registry=self.registry,
            tools=self.catalogue,
            observer=self._observer,
            records=self._records,
        )
        if (refusal := self._drain.refusal) is not None:
            call.end(refusal)
        task = self._tasks.create_task(self._run_call(call), name=f"call {call.id}")
        self._calls[task] = call
        task.add_done_callback(self._call_over)

    def _call_over(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        self._drain.call_over()

    async def _run_call(self, call: Call) -> None:
        try:
            if isinstance(call.leg, DialplanLeg):
                await self._recognise(call, call.leg)
            await call.run()
        except Exception:  # a defect in one call's clean-up must not end the others
            log.exception("call.defect", call=call.id)
        finally:
            way = self._stasis or self.outbound
            if way is not None:
                way.call_over(call.id)

    async def _recognise(self, call: Call, leg: DialplanLeg) -> None:
        """Way B: before it takes one of ``max_calls`` places, a connection must be a call's.

        Else whoever makes up UUIDs would keep callers out. It gives up its place among strangers only when
        there is one among the calls.
        """
        settings = self.config
        if settings.audiosocket.verify == "ari":
            stranger = await leg.look_up(settings.calls.setup_timeout)
            if stranger is not None:
                call.end(stranger.cause, stranger.detail)
                return
        if len(self.registry.calls) < self.registry.max_calls:
            self.media.recognise(leg.connection)

    async def _hand_over(self) -> None:
        """Let Asterisk bring who is left to another service, if this is one of several. Does not wait."""
        if self.outbound is not None:
            self._control.append(self._tasks.create_task(self.outbound.hand_over(), name="hand over"))
            await asyncio.sleep(0)  # its first step ends the calls, before anybody else does

    async def _end_calls(self) -> None:
        """End the calls that are up and see those off that still come. What hangs is cancelled."""
        self._drain.end()  # from here on, a call that comes is ended as it starts
        for call in self._calls.values():
            call.end(Cause.SHUTDOWN)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._calls:
                    await asyncio.wait(self._calls)
        if self._calls:
            log.error("service.calls_hang", calls=[call.id for call in self._calls.values()])
        for task in self._calls:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(_guarded(work))


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # a defect in what no call waits for must not end every call
        log.exception("service.defect")


def _warm_up() -> None:
    """Design the filters before the first caller waits for them."""
    telephone, wide = AudioFormat(8000), AudioFormat(16000)
    Resampler(telephone, wide)
    Resampler(AudioFormat(24000), telephone)

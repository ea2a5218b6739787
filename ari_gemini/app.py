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
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audiosocket.connection import Connection
from ari_gemini.audiosocket.server import Address, AudioSocketServer
from ari_gemini.call.call import Call, CallObserver
from ari_gemini.call.dialplan import DialplanLeg
from ari_gemini.call.leg import Leg
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis import StasisWay
from ari_gemini.config import Config
from ari_gemini.errors import Cause
from ari_gemini.gemini.session import open_session
from ari_gemini.realtime.session import OpenSession

log = structlog.get_logger(__name__)

CHECK_UUID = UUID("df9c6ba7-ff79-42c6-8e58-d5e4e7f659b2")
"""What ``ari-gemini check`` calls itself when it has Asterisk dial this service: no call begins."""

STOP_SECONDS = 15.0
"""How long a stopping service waits until its calls are sent on and cleaned up: several requests of 3 s."""


class Service:
    """The whole service. ``run`` it in a task; ``stop`` ends it from the outside."""

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
        self.media = AudioSocketServer(config.audiosocket, self._connected)
        self.client = AriClient(config.ari) if config.ari is not None else None
        self.catalogue = config.catalogue(environ or {})
        self._observer = observer
        self._sessions = sessions or partial(open_session, config.gemini)
        self._stasis: StasisWay | None = None
        self._tasks = asyncio.TaskGroup()
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._control: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Serve until ``stop``; then every call is ended and cleaned up, within STOP_SECONDS.

        Raises ConfigError when the media address cannot be had. Cancelling does the same before it goes on;
        cancelling once more cuts the clean-up short.
        """
        _warm_up()
        await self.media.start()
        try:
            async with self._tasks:
                self._start_control()
                self._control.append(self._tasks.create_task(self.catalogue.run(), name="tools"))
                self._listening.set()
                try:
                    await self._stopping.wait()
                finally:
                    # before the TaskGroup cancels anything: to send callers on takes Asterisk control
                    await self._end_calls()
                    for task in self._control:
                        task.cancel()
        finally:
            await self.media.close()

    async def wait_listening(self) -> Address:
        """Wait until media connections are taken; returns where. For ARI see ``client.wait_connected``."""
        await self._listening.wait()
        return self.media.address

    def stop(self) -> None:
        """End every call and then ``run``. May be called from a signal handler, any number of times."""
        self._stopping.set()

    @property
    def calls(self) -> int:
        """Calls in progress, those being cleaned up included."""
        return len(self._calls)

    # -- calls ---------------------------------------------------------------------------------------------

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
            return
        if self._stopping.is_set():
            connection.refuse("the service is being stopped")
            return
        if connection.uuid == CHECK_UUID:
            connection.refuse("a check")
            return
        verify = self.config.audiosocket.verify == "ari"
        self._start_call(DialplanLeg(connection, self.client, verify=verify))

    def _start_call(self, leg: Leg) -> None:
        call = Call(
            leg,
            settings=self.config.calls,
            agents=self.config.agents,
            open_session=self._sessions,
            registry=self.registry,
            tools=self.catalogue,
            observer=self._observer,
        )
        if self._stopping.is_set():
            call.end(Cause.SHUTDOWN)
        task = self._tasks.create_task(self._run_call(call), name=f"call {call.id}")
        self._calls[task] = call
        task.add_done_callback(self._calls.pop)

    async def _run_call(self, call: Call) -> None:
        try:
            await call.run()
        except Exception:  # a defect in one call's clean-up must not end the others
            log.exception("call.defect", call=call.id)
        finally:
            if self._stasis is not None:
                self._stasis.call_over(call.id)

    async def _end_calls(self) -> None:
        """End the calls that are up and see those off that still come. What hangs is cancelled."""
        self._stopping.set()  # from here on, a call that comes is ended as it starts
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

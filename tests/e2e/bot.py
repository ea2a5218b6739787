"""The service under test, in this process, between the real Asterisk and a simulated Gemini."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.asterisk import OUTBOUND_APP, Asterisk

from ari_gemini.app import Service
from ari_gemini.call.call import Call
from ari_gemini.config import load_config
from ari_gemini.errors import CallEnded
from ari_gemini.realtime.events import Speaker
from ari_gemini.simulator.gemini_live import GeminiSimulator, SimulatedSession
from ari_gemini.simulator.scenario import Scenario
from ari_gemini.telemetry.timeline import Turn
from ari_gemini.tools.toolbox import ToolUse

WAY_A, WAY_B, OUTBOUND = "700", "701", "702"


@dataclass
class Watcher:
    """A CallObserver that remembers. ``only_ends``: for many calls, nothing else is kept."""

    only_ends: bool = False
    outcomes: list[CallEnded] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    words: list[tuple[Speaker, str]] = field(default_factory=list)
    uses: list[ToolUse] = field(default_factory=list)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def started(self, call: Call) -> None: ...

    def transcript(self, call: Call, speaker: Speaker, text: str) -> None:
        if not self.only_ends:
            self.words.append((speaker, text))

    def turn(self, call: Call, turn: Turn) -> None:
        if not self.only_ends:
            self.turns.append(turn)

    def tool(self, call: Call, use: ToolUse) -> None:
        if not self.only_ends:
            self.uses.append(use)

    def ended(self, call: Call, outcome: CallEnded) -> None:
        self.outcomes.append(outcome)
        self._ended.set()

    async def wait_outcomes(self, count: int, timeout: float = 20.0) -> None:
        """Wait until ``count`` calls have ended."""
        async with asyncio.timeout(timeout):
            while len(self.outcomes) < count:
                self._ended.clear()
                await self._ended.wait()


@dataclass
class Bot:
    """A running service with everything a test looks at."""

    service: Service
    gemini: GeminiSimulator
    watcher: Watcher
    tasks_before: set[asyncio.Task[Any]]

    async def session(self, number: int = 1) -> SimulatedSession:
        """The ``number``-th model session, now or when it comes."""
        return await self.gemini.wait_session(number)

    async def idle(self) -> None:
        """Wait until no call is left; then nothing of any call may be left either."""
        async with asyncio.timeout(20):
            while self.service.calls or self.service.media.connections:  # noqa: ASYNC110 - its own business
                await asyncio.sleep(0.02)
            for session in self.gemini.sessions:
                await session.wait_closed()
        assert not self.service.registry.calls
        left = {task for task in asyncio.all_tasks() if not task.done()} - self.tasks_before
        names = sorted(task.get_name() for task in left)
        assert [
            name for name in names if name.startswith("call ") or " uplink" in name or " listen" in name
        ] == []


def configuration(asterisk: Asterisk, gemini_url: str, calls: Mapping[str, str]) -> dict[str, str]:
    """The service's configuration as environment variables."""
    return {
        "ARI_PASSWORD": asterisk.password,
        "GEMINI_API_KEY": "a-key-of-this-test",
        "ARI_GEMINI__ARI__URL": asterisk.ari_url,
        "ARI_GEMINI__ARI__USERNAME": asterisk.username,
        "ARI_GEMINI__AUDIOSOCKET__LISTEN": f"{asterisk.address}:0",
        "ARI_GEMINI__GEMINI__BASE_URL": gemini_url,
        "ARI_GEMINI__AGENTS__DEFAULT__GREETING": "Greet the caller.",
        **{f"ARI_GEMINI__CALLS__{key.upper()}": value for key, value in calls.items()},
    }


def outbound(asterisk: Asterisk) -> dict[str, str]:
    """Further settings of a service that Asterisk connects to when 702 is dialled."""
    return {
        "ARI_GEMINI__ARI__MODE": "outbound",
        "ARI_GEMINI__ARI__LISTEN": asterisk.outbound_address,
        "ARI_GEMINI__ARI__APP": OUTBOUND_APP,
    }


@asynccontextmanager
async def running(
    asterisk: Asterisk,
    scenario: Scenario | str,
    *,
    simulator: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    only_ends: bool = False,
    **calls: str,
) -> AsyncIterator[Bot]:
    """A service that plays ``scenario`` to whoever dials 700 (way A) or 701 (way B).

    ``simulator`` are further arguments of GeminiSimulator, ``calls`` keys of ``[calls]``, ``environ`` further
    settings as environment variables. ``only_ends``: see Watcher.
    """
    async with GeminiSimulator(scenario, **(simulator or {})) as gemini:
        watcher = Watcher(only_ends)
        variables = configuration(asterisk, gemini.url, calls) | dict(environ or {})
        service = Service(load_config(None, variables), observer=watcher)
        before = asyncio.all_tasks()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run(), name="service")
            try:
                async with asyncio.timeout(10):
                    address = await service.wait_listening()
                    if service.client is not None:
                        await service.client.wait_connected()
                await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", str(address))
                yield Bot(service, gemini, watcher, before)
            finally:
                service.stop()


def open_sockets() -> set[str]:
    """The sockets this process has open, by inode."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found

"""``ari-gemini demo``: one whole call through the real service, shown as it happens.

Caller and Asterisk are simulated; so is Gemini, unless a key is given. The service between them is the one that
``ari-gemini serve`` runs.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import SecretStr

from ari_gemini.app import Service
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.server import AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.call.call import Call
from ari_gemini.config import Config
from ari_gemini.errors import AriGeminiError, CallEnded, Cause
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.events import Speaker
from ari_gemini.simulator.asterisk import SimulatedAsterisk, SimulatedCall
from ari_gemini.simulator.caller_voice import CallerReport, Cue, Line, ScriptedVoice
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase
from ari_gemini.telemetry.timeline import Turn

SCRIPT = (
    ("ask_hours", Cue.REPLY_END, 600.0),
    ("ask_delivery", Cue.REPLY_END, 600.0),
    ("interrupt", Cue.REPLY_BEGIN, 2500.0),
    ("say_goodbye", Cue.REPLY_END, 600.0),
)
"""What the caller says, on which cue, and how many milliseconds after it: the third line interrupts."""

AGENT = Agent(
    voice="Aoede",
    language="en-US",
    instructions=(
        "You answer the phone of an online shop. You are open from nine to five, Monday to Friday. Orders are packed "
        "on the day they arrive and delivered by van on the next. Answer in one or two short sentences, except about "
        "delivery, which you explain at length. The caller's number is {caller_number}."
    ),
    greeting="Greet the caller and ask how you can help.",
)

CALLER, DIALLED = "4711", "700"
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.05
"""How often the demo looks whether the caller is done: once in a few frames."""


class Screen:
    """Shows a call on a terminal, line by line, words as they come. A CallObserver."""

    def __init__(self, out: TextIO) -> None:
        self.turns: list[Turn] = []
        self.outcome: CallEnded | None = None
        self.over = asyncio.Event()
        self._out = out
        self._clock = asyncio.get_running_loop().time
        self._zero = self._clock()
        self._speaker: Speaker | None = None

    def line(self, text: str) -> None:
        """Say something about the call."""
        self._break()
        self._write(f"{self._clock() - self._zero:6.1f} s  {text}\n")

    def started(self, call: Call) -> None:
        self.line("the model is ready: the service answers and bridges the call")

    def transcript(self, call: Call, speaker: Speaker, text: str) -> None:
        if speaker is not self._speaker:
            self._break()
            self._speaker = speaker
            self._write(f"{self._clock() - self._zero:6.1f} s  {speaker.value + ':':<8}")
            text = text.lstrip()
        self._write(text)

    def turn(self, call: Call, turn: Turn) -> None:
        self.turns.append(turn)
        if turn.interrupted is not None:
            self.line(f"the caller interrupts: the model falls silent after {turn.heard_ms / 1000:.1f} s of its answer")

    def ended(self, call: Call, outcome: CallEnded) -> None:
        self.outcome = outcome
        self.line(f"the call is over: {outcome}")
        self.over.set()

    def _break(self) -> None:
        if self._speaker is not None:
            self._write("\n")
            self._speaker = None

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


async def demo(directory: Path, environ: Mapping[str, str], out: TextIO = sys.stdout) -> bool:
    """Play the call; True when it went through to the caller's goodbye. The recording goes into ``directory``.

    Raises AriGeminiError when the service cannot start, OSError when the recording cannot be written.
    """
    async with AsyncExitStack() as stack:
        asterisk = await stack.enter_async_context(SimulatedAsterisk())
        key = environ.get("GEMINI_API_KEY", "")
        if key:
            gemini = GeminiSettings(api_key=SecretStr(key))
        else:
            simulator = await stack.enter_async_context(GeminiSimulator("demo"))
            gemini = GeminiSettings(base_url=simulator.url, api_key=SecretStr(secrets.token_hex(8)))
        screen = Screen(out)
        screen.line(f"simulated Asterisk, simulated caller, {'real' if key else 'simulated'} Gemini ({gemini.model})")
        service = Service(_config(asterisk, gemini), observer=screen)
        report = await _play(service, asterisk, screen)
    if screen.outcome is None or screen.outcome.cause is not Cause.CALLER_HANGUP:
        return False
    _summary(out, screen.turns, _record(report, directory))
    return report.completed


def _config(asterisk: SimulatedAsterisk, gemini: GeminiSettings) -> Config:
    ari = AriSettings(url=asterisk.url, username=asterisk.username, password=SecretStr(asterisk.password))
    media = AudioSocketSettings(listen="127.0.0.1:0")
    return Config(ari=ari, audiosocket=media, gemini=gemini, agents={"default": AGENT})


async def _play(service: Service, asterisk: SimulatedAsterisk, screen: Screen) -> CallerReport:
    """One call, from dialling to the end of the service."""
    lines = [_line(*cue) for cue in SCRIPT]
    voice = ScriptedVoice(lines, asyncio.get_running_loop().time)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        try:
            await _connected(service)
            screen.line(f"{CALLER} dials {DIALLED}: Stasis(ari-gemini,default)")
            call = await asterisk.call(number=CALLER, exten=DIALLED, voice=voice)
            await _until_done(call, voice, screen)
        finally:
            service.stop()
    return voice.report()


async def _connected(service: Service) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await service.wait_listening()
            if service.client is not None:
                await service.client.wait_connected()
    except TimeoutError:
        raise AriGeminiError("the service did not connect to the simulated Asterisk") from None


async def _until_done(call: SimulatedCall, voice: ScriptedVoice, screen: Screen) -> None:
    while not voice.done and not screen.over.is_set():
        await asyncio.sleep(POLL_SECONDS)
    if not screen.over.is_set():
        screen.line("the caller hangs up")
        call.hang_up()
    await screen.over.wait()


def _line(name: str, cue: Cue, delay_ms: float) -> Line:
    said = phrase(name)
    return Line(said.pcm, said.text, cue, delay_ms)


def _record(report: CallerReport, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"call-{datetime.now(UTC):%Y%m%d-%H%M%S}.wav"
    report.write_wav(path)
    return path


def _summary(out: TextIO, turns: list[Turn], recording: Path) -> None:
    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    row: Any = "{:>6} {:>14} {:>13} {:>10} {:>9} {:>9}  {}\n".format
    out.write("\nEach answer of the model, in milliseconds:\n\n")
    out.write(row("answer", "caller waited", "endpointing", "thinking", "playout", "spoken", ""))
    for turn in turns:
        parts = (turn.latency_ms, turn.endpointing_ms, turn.thinking_ms, turn.playout_ms, turn.heard_ms)
        out.write(row(turn.number, *map(ms, parts), "interrupted" if turn.interrupted is not None else ""))
    out.write(f"\nThe call to listen to, caller left, model right: {recording}\n")

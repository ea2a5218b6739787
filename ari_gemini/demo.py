"""``ari-gemini demo``: one whole call through the real service, shown as it happens.

Caller and Asterisk are simulated; so is Gemini, unless a key is given. The service between them is the one
that ``ari-gemini serve`` runs.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import textwrap
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import SecretStr

from ari_gemini.app import Service
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.server import AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.call.call import Call
from ari_gemini.call.model_watch import StallSettings
from ari_gemini.config import ENV_PREFIX, Config, load_config
from ari_gemini.errors import AriGeminiError, CallEnded, Cause, ConfigError
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.events import Speaker
from ari_gemini.simulator.asterisk import SimulatedAsterisk, SimulatedCall
from ari_gemini.simulator.caller_voice import CallerReport, Cue, Line, ScriptedVoice
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase
from ari_gemini.telemetry.timeline import Turn
from ari_gemini.tools.toolbox import ToolUse

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
        "You answer the phone of an online shop. You are open from nine to five, Monday to Friday. "
        "Orders are packed on the day they arrive and delivered by van on the next. Answer in one or two "
        "short sentences, except about delivery, which you explain at length. "
        "The caller's number is {caller_number}. When he says goodbye, say goodbye and hang up."
    ),
    greeting="Greet the caller and ask how you can help.",
    tools=("hangup_call",),
    stall=StallSettings(comfort_after=0),  # the simulated caller takes every sound for an answer
)

LEGEND = """
  endpointing  from the caller's last sound until Gemini says that he has finished
  thinking     from there to the first sound of the answer
  playout      from there to the first frame on its way to the phone
"""

CALLER, DIALLED = "4711", "700"
CONNECT_SECONDS = 10.0
FAREWELL_SECONDS = 3.0
"""How long the caller waits for the model to hang up before he does."""
POLL_SECONDS = 0.05
"""How often the demo looks whether the caller is done: once in a few frames."""


class Screen:
    """Shows a call on a terminal, line by line, words as they come. A CallObserver."""

    def __init__(self, out: TextIO) -> None:
        self.turns: list[Turn] = []
        self.said: list[tuple[Speaker, str]] = []
        """Who said what, one entry for each change of speaker."""
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
            self.said.append((speaker, ""))
        self.said[-1] = (speaker, self.said[-1][1] + text)
        self._write(text)

    def turn(self, call: Call, turn: Turn) -> None:
        self.turns.append(turn)
        if turn.interrupted is not None:
            heard = turn.heard_ms / 1000
            self.line(f"the caller interrupts: the model falls silent after {heard:.1f} s of its answer")

    def tool(self, call: Call, use: ToolUse) -> None:
        self.line(f"the model uses {use.name}: {use.outcome.value}")

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
    """Play the call; True when it went through to the goodbye. The recording goes into ``directory``.

    With GEMINI_API_KEY in ``environ`` the model is the real one, at the address and with the model that
    ARI_GEMINI__GEMINI__... may name. Raises ConfigError when those are wrong or the recording cannot be
    written, AriGeminiError when the service does not start.
    """
    given = _given(environ)
    _make(directory)
    async with AsyncExitStack() as stack:
        asterisk = await stack.enter_async_context(SimulatedAsterisk())
        if given is None:
            simulator = await stack.enter_async_context(GeminiSimulator("demo"))
            gemini = GeminiSettings(base_url=simulator.url, api_key=SecretStr(secrets.token_hex(8)))
        else:
            gemini = given
        screen = Screen(out)
        whose = "simulated" if given is None else "real"
        screen.line(f"simulated Asterisk, simulated caller, {whose} Gemini ({gemini.model})")
        service = Service(_config(asterisk, gemini), observer=screen)
        report = await _play(service, asterisk, screen)
    if screen.outcome is None or screen.outcome.cause not in (Cause.CALLER_HANGUP, Cause.MODEL_HANGUP):
        _failure(out, screen.outcome, given)
        return False
    # a model that hangs up does so before the caller is sure that its goodbye was all
    completed = report.completed or (
        screen.outcome.cause is Cause.MODEL_HANGUP and len(report.turns) == len(SCRIPT)
    )
    _summary(out, screen, _record(report, directory), completed=completed)
    return completed


def _given(environ: Mapping[str, str]) -> GeminiSettings | None:
    """The real Gemini that the environment names, or None. Raises ConfigError."""
    if not (environ.get("GEMINI_API_KEY") or environ.get("GEMINI_API_KEY_FILE")):
        return None
    ours = ("GEMINI_API_KEY", f"{ENV_PREFIX}GEMINI__")
    wanted = {name: value for name, value in environ.items() if name.upper().startswith(ours)}
    return load_config(None, {**wanted, f"{ENV_PREFIX}AUDIOSOCKET__VERIFY": "none"}).gemini


def _make(directory: Path) -> None:
    """Find out before the call, not after it, that its recording has no place."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {directory}: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"--out {directory}: Permission denied")


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
    while not voice.done and not screen.over.is_set():  # noqa: ASYNC110  # the voice has no events
        await asyncio.sleep(POLL_SECONDS)
    with suppress(TimeoutError):
        await asyncio.wait_for(screen.over.wait(), FAREWELL_SECONDS)
    if not screen.over.is_set():
        screen.line("the caller hangs up")
        call.hang_up()
    await screen.over.wait()


def _line(name: str, cue: Cue, delay_ms: float) -> Line:
    said = phrase(name)
    return Line(said.pcm, said.text, cue, delay_ms)


def _record(report: CallerReport, directory: Path) -> Path:
    path = directory / f"call-{datetime.now(UTC):%Y%m%d-%H%M%S}.wav"
    try:
        report.write_wav(path)
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}") from None
    return path


def _failure(out: TextIO, outcome: CallEnded | None, given: GeminiSettings | None) -> None:
    why = outcome.detail or outcome.cause.value if outcome is not None else "it never began"
    out.write(f"\nThe call did not go through: {why}\n")
    if given is not None:
        out.write(
            f"GEMINI_API_KEY is set, so the model was to be the real one at {given.base_url}. "
            "Without it the demo talks to the simulated one.\n"
        )


def _summary(out: TextIO, screen: Screen, recording: Path, *, completed: bool) -> None:
    out.write("\nWhat was said:\n\n")
    for speaker, text in screen.said:
        words = f"  {speaker.value + ':':<8} {text.strip()}"
        out.write(textwrap.fill(words, 100, subsequent_indent=" " * 11) + "\n")
    out.write("\nEach answer of the model, in milliseconds:\n\n")
    row: Any = "{:>8} {:>14} = {:>11} + {:>8} + {:>7} {:>9}  {}".format
    heads = ("answer", "caller waited", "endpointing", "thinking", "playout", "spoken", "")
    out.write(row(*heads).rstrip() + "\n")
    for turn in screen.turns:
        parts = (turn.latency_ms, turn.endpointing_ms, turn.thinking_ms, turn.playout_ms, turn.heard_ms)
        note = "interrupted" if turn.interrupted is not None else ""
        note = "the greeting: nobody waited for it" if turn.latency_ms is None and not note else note
        out.write(row(turn.number, *map(_ms, parts), note).rstrip() + "\n")
    out.write(LEGEND)
    if not completed:
        out.write("\nThe caller hung up before the end: the model did not answer.\n")
    out.write(f"\nThe call to listen to, caller left, model right: {recording}\n")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"

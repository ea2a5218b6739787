"""What the simulated Gemini will say, do and get wrong: scenarios, as TOML files and as values.

``scenarios/NAME.toml`` ship with the package; any other TOML file of the same shape can be named by its path.
All durations are seconds of the simulator's own clock, which a test may run faster than the wall's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ari_gemini.errors import ConfigError
from ari_gemini.simulator.phrases import join, phrase

SCENARIO_DIR = Path(__file__).parent / "scenarios"
DEFAULT_SCENARIO = "two_turns"

T = TypeVar("T")

Trigger = Literal["speech", "text"]
FaultPoint = Literal["connect", "setup", "ready", "time", "heard", "speech", "caller", "turn", "tool"]


def _check_phrases(look_up: Callable[[T], object], names: T) -> None:
    """Turn the look-up's ConfigError into the ValueError that pydantic collects."""
    try:
        look_up(names)
    except ConfigError as error:
        raise ValueError(str(error)) from error


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedCall(_Frozen):
    """A function the model calls."""

    name: str
    args: dict[str, Any] = {}


class ScriptTurn(_Frozen):
    """One turn of the model, and what started it."""

    on: Literal["speech", "text", "any"] = "speech"
    """Started by the caller's speech, or by text that the client sends (a greeting instruction)."""
    expect: str | None = None
    """The caller's phrase that belongs here: its words become the caller's transcript."""
    caller_text: str | None = None
    """The caller's transcript, when no recorded phrase has it."""
    first: tuple[str, ...] = ()
    """Phrases said before the functions are called."""
    calls: tuple[ScriptedCall, ...] = ()
    """Functions called side by side, in one message. One that the setup does not declare is left out."""
    say: tuple[str, ...] = ()
    """Phrases said, after the functions' results if there are any."""
    think: float | None = Field(default=None, ge=0)
    """Seconds before this turn begins; the scenario's ``think_time`` when absent."""
    silent: bool = False
    """What is said comes as sound that nobody can hear, 60 dB lower; its transcript is complete."""
    reason: str | None = None
    """The ``turnCompleteReason`` with which it ends, such as RESPONSE_REJECTED. A turn that says and calls
    nothing ends with an empty turnComplete, with or without a reason."""
    stall: bool = False
    """The model never answers: not a message goes out, until something else starts the next turn."""
    times: int = Field(default=1, ge=1, le=1000)
    """This turn comes so often before the next."""

    @model_validator(mode="after")
    def _known_phrases(self) -> Self:
        _check_phrases(join, (*self.first, *self.say))
        if self.expect is not None:
            _check_phrases(phrase, self.expect)
        return self

    @property
    def transcript(self) -> str | None:
        """The caller's words, if the script knows them."""
        if self.caller_text is not None:
            return self.caller_text
        return phrase(self.expect).text if self.expect else None


class Fault(_Frozen):
    """Something that goes wrong, once, at a given point of a connection."""

    at: FaultPoint
    """connect: the WebSocket stands; setup: the setup came; ready: setupComplete went out; time: ``after``
    seconds later; heard: ``after`` audio messages came; speech: ``after`` seconds of model speech went out;
    caller, turn, tool: the ``after``-th time the caller begins, the model begins, a call goes out."""
    after: float = Field(default=1, ge=0)
    connection: int | None = Field(default=None, ge=1)
    """Only on this connection of the simulator, 1 being its first; on every one when absent."""
    do: Literal[
        "close",
        "abort",
        "go_away",
        "malformed_json",
        "unknown_message",
        "bad_base64",
        "text_frame",
        "mute",
        "slow_pongs",
        "interrupt",
        "cancel_tools",
    ]
    """close: with ``code`` and ``reason``; abort: the TCP connection is reset without a close frame; mute:
    nothing is sent any more and nothing heard, pings excepted; slow_pongs: each pong ``seconds`` late."""
    code: int = Field(default=1011, ge=1000, le=4999)
    reason: str = "Internal error encountered."
    """``{model}`` and ``{version}`` stand for what the client asked for."""
    seconds: float = Field(default=0, ge=0)
    """go_away: the time left; slow_pongs: the delay."""


class Lifetime(_Frozen):
    """How long a connection lives, seconds after setupComplete.

    Measured: goAway at 540 with 50 left and 1008 at 590; on gemini-3.8-live no notice and 1011 at 3480.
    """

    go_away_at: float | None = None
    time_left: float = 50
    close_at: float | None = None
    code: int = 1011
    reason: str = "Deadline expired before operation could complete."


class Scenario(_Frozen):
    """A whole behaviour of the simulated service. Every field has a default: the service at its best."""

    name: str = "custom"
    summary: str = ""
    seed: int = 1
    """Of everything random: chunk sizes, pace, empty messages, handles."""

    http_status: int | None = Field(default=None, ge=400, le=599)
    """Answer the upgrade with this instead of 101."""
    refuse_keys: bool = False
    """No API key is valid."""
    upgrade: bool = True
    """False: accept the TCP connection and never answer the upgrade."""
    early_messages: Literal["close", "drop"] = "close"
    """What becomes of messages between setup and setupComplete; the service has been seen doing both."""

    setup_delay: float = Field(default=0.4, ge=0)
    think_time: float = Field(default=0.8, ge=0)
    """From the end of the caller's turn to the first sound of the answer."""
    tool_time: float = Field(default=0.3, ge=0)
    """From the last function result to what the model says next."""
    pace: tuple[float, float] = (3.5, 5.0)
    """Speech leaves this much faster than it plays; one number is drawn for each utterance."""
    chunk_bytes: tuple[int, ...] = ()
    """Audio chunk sizes: (shortest, longest), or three or more to choose from; the family's when empty."""
    empties: float = Field(default=0.15, ge=0, le=0.95)
    """Chance of an empty message before each chunk."""
    url_safe_base64: bool = False
    late_frames: int = Field(default=0, ge=0, le=10)
    """Audio messages that still follow ``interrupted``."""
    cancel_on_interrupt: Literal["blocking", "all"] = "blocking"
    """Which pending calls an interruption cancels."""
    answers: Literal["speech", "nothing", "waiting"] = "speech"
    """nothing: the model never answers; waiting: it says each time that it waits for more."""

    resume_hold: float = Field(default=1.0, ge=0)
    """A session dropped while idle cannot be resumed for this long (closed 1011)."""
    resume_refused: float = Field(default=0, ge=0)
    """No session can be resumed for this long after its connection ended, 1011; ``inf``: never."""
    handle_lifetime: float = Field(default=7200, ge=0)
    """A handle's validity after its session's last connection ended (Gemini API: session management)."""
    silence_limit: float | None = Field(default=None, gt=0)
    """A connection whose client sends nothing for so long is closed 1011, its handles die. Measured once,
    after the path had gone silent: about 480."""
    lifetime: Lifetime = Lifetime()
    faults: tuple[Fault, ...] = ()

    turns: tuple[ScriptTurn, ...] = ()
    after_script: Literal["generic", "repeat"] = "generic"
    """When the script is used up: say ``generic``, or repeat the last turn."""
    generic: tuple[str, ...] = ("anything_else",)

    @field_validator("chunk_bytes")
    @classmethod
    def _whole_samples(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(sizes) == 1 or any(size < 2 or size % 2 for size in sizes):
            raise ValueError("chunk sizes are two or more even numbers")
        if len(sizes) == 2 and sizes[0] > sizes[1]:
            raise ValueError("the shortest chunk is longer than the longest")
        return sizes

    @field_validator("pace")
    @classmethod
    def _positive(cls, pace: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pace[0] <= pace[1]:
            raise ValueError("pace is (slowest, fastest), both above 0")
        return pace

    @field_validator("generic")
    @classmethod
    def _known_phrases(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _check_phrases(join, names)
        return names


_STALL = ScriptTurn(on="any", stall=True)


class Script:
    """A session's place in its scenario's turns. It belongs to the conversation and outlives a connection."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._turns = tuple(turn for turn in scenario.turns for _ in range(turn.times))
        self._next = 0
        self._stalls = 0

    def stall(self, times: int) -> None:
        """Let the next ``times`` triggers go unanswered."""
        self._stalls += times

    def take(self, trigger: Trigger) -> ScriptTurn:
        """The next turn that this trigger starts.

        Speech passes over turns that wait for text (a greeting nobody asked for); text that no coming turn
        waits for gets the generic reply.
        """
        if self._stalls:
            self._stalls -= 1
            return _STALL
        turns = self._turns
        for index in range(self._next, len(turns)):
            if turns[index].on in (trigger, "any"):
                self._next = index + 1
                return turns[index]
        if trigger == "speech" and turns and self._scenario.after_script == "repeat":
            return turns[-1]
        return ScriptTurn(on="any", say=self._scenario.generic)

    def expected(self, trigger: Trigger) -> ScriptTurn:
        """The turn that ``take`` would return, left in its place."""
        before = self._next, self._stalls
        turn = self.take(trigger)
        self._next, self._stalls = before
        return turn

    def put_back(self, turn: ScriptTurn) -> None:
        """This turn was cut off before a sound of it was sent: it comes next again."""
        if self._next and self._turns[self._next - 1] is turn:
            self._next -= 1


def load_scenario(name: str) -> Scenario:
    """A shipped scenario by name, or one from a ``.toml`` file. Raises ConfigError in one line."""
    path = Path(name) if name.endswith(".toml") else SCENARIO_DIR / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(list_scenarios()))
        raise ConfigError(f"no scenario {name!r}; there are: {known} (or the path of a .toml file)")
    try:
        return Scenario(**{"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error


def list_scenarios() -> dict[str, str]:
    """Name and one-line summary of every shipped scenario."""
    found = {}
    for path in sorted(SCENARIO_DIR.glob("*.toml")):
        found[path.stem] = str(tomllib.loads(path.read_text(encoding="utf-8")).get("summary", ""))
    return found

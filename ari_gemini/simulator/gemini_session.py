"""One connection to the simulated service: setup, the session it opens, its end, and its faults.

It has no loop and no clock: every method is told the time (the simulator's, s), whatever is due later waits
in an agenda, and what is to be sent goes to a ``Wire`` that never waits.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.agenda import Agenda
from ari_gemini.simulator.gemini_access import Admission
from ari_gemini.simulator.gemini_desk import Call, Desk, Open, Reply, Wire, says
from ari_gemini.simulator.gemini_dialogue import NOT_IMPLEMENTED, Dialogue
from ari_gemini.simulator.gemini_faults import Faults
from ari_gemini.simulator.gemini_memory import HandleBook, Memory
from ari_gemini.simulator.gemini_messages import read_frame
from ari_gemini.simulator.gemini_record import SessionRecord
from ari_gemini.simulator.gemini_schema import RefusalError, cut_reason, invalid_argument
from ari_gemini.simulator.gemini_setup import AcceptedSetup, accept_setup
from ari_gemini.simulator.scenario import Fault, Scenario, ScriptedCall

Json = dict[str, Any]

REFUSAL_DELAY = 1.0
"""Seconds after which a client with bad credentials is refused even if it says nothing."""

GO_AWAY_IGNORED = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal "
    "once the session duration limit was reached."
)


DEADLINE = "Deadline expired before operation could complete."

TOKEN_RAN_OUT = "auth token has expired"  # noqa: S105 - a message, not a secret
"""How a session ends whose token does (published measurements of 2026-09: within a second of that time)."""


class Phase(Enum):
    """Where a connection stands."""

    CONNECTED = auto()
    SETTING_UP = auto()
    OPEN = auto()
    CLOSED = auto()


class Conversation:
    """The service's side of one connection.

    ``admit``: its ``setup`` turns the client's checked setup into the one that counts (an ephemeral token may
    overrule it) or raises RefusalError. ``number`` counts the simulator's connections from 1.
    """

    def __init__(
        self,
        scenario: Scenario,
        book: HandleBook,
        wire: Wire,
        record: SessionRecord,
        *,
        number: int = 1,
        version: str = "v1beta",
        rng: random.Random | None = None,
        admit: Admission | None = None,
    ) -> None:
        self.phase = Phase.CONNECTED
        self.agenda = Agenda()
        self._version = version
        self._admit = admit or Admission()
        self._faults = Faults(scenario.faults, number, self.agenda, self._act)
        rng = rng or random.Random(scenario.seed)
        self._desk = Desk(scenario, wire, record, self.agenda, rng, book, self._faults.reach)
        self._model = ""
        self._memory: Memory | None = None
        self._dialogue: Dialogue | None = None
        self._muted = False
        self._refusal: RefusalError | None = None
        self._heard_at = 0.0

    @property
    def memory(self) -> Memory | None:
        """What is remembered of the session, once it is open."""
        return self._memory

    def connected(self, now: float, refusal: RefusalError | None = None) -> None:
        """The WebSocket stands.

        ``refusal``: the credentials were not accepted. The close comes with the client's first frame, which a
        client has on its way before the service's answer can reach it, or a second later.
        """
        self._desk.record.note("connected", now)
        self._refusal = refusal
        if refusal is not None:
            self.agenda.at(now + REFUSAL_DELAY, lambda at: self.refuse(refusal, at))
        self._faults.reach("connect", now)

    def receive(self, frame: str | bytes, now: float) -> None:
        """A client frame came. What is wrong with it closes the connection as the service would."""
        if self._muted or self.phase is Phase.CLOSED:
            return
        self._heard_at = now
        try:
            self._receive(frame, now)
        except RefusalError as refusal:
            self.refuse(refusal, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        try:
            self.agenda.run(now)
        except RefusalError as refusal:
            self.refuse(refusal, now)

    def disconnected(self, now: float) -> None:
        """The connection is gone, whoever ended it: remember the session for a resumption. Idempotent."""
        self.phase = Phase.CLOSED
        self.agenda.close()
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None and self._memory is not None:
            cut, spoke = dialogue.replies.drop(now)
            self._desk.book.detach(self._memory, now, cut, spoke)

    def refuse(self, refusal: RefusalError, now: float) -> None:
        """Close as the service does when it refuses something."""
        if self.phase is not Phase.CLOSED:
            self._desk.record.note("refused", now, code=refusal.code, reason=refusal.reason)
            self.close(refusal.code, refusal.reason, now)

    def close(self, code: int, reason: str, now: float) -> None:
        """Close with that code and reason, the reason cut to what a close frame holds."""
        if self.phase is not Phase.CLOSED:
            self.disconnected(now)
            self._desk.wire.close(code, cut_reason(reason))

    def abort(self, now: float) -> None:
        """Reset the TCP connection, without a close frame."""
        if self.phase is not Phase.CLOSED:
            self.disconnected(now)
            self._desk.wire.abort()

    # What a test or a fault can make it do; each is ignored unless the session is open.

    def interrupt(self, now: float) -> None:
        """Interrupt as if the caller had spoken."""
        if self._dialogue is not None:
            self._dialogue.replies.interrupt(now)

    def cancel_tools(self, now: float) -> None:
        """Take back every open call."""
        if self._dialogue is not None:
            self._dialogue.replies.cancel_calls(now)

    def go_away(self, seconds: float, now: float) -> None:
        """Announce the end, and close in ``seconds`` if the client has not."""
        if self._dialogue is not None:
            self._desk.wire.send(frames.go_away(seconds))
            self._desk.record.note("go_away", now, seconds=seconds)
            self.agenda.at(now + seconds, lambda at: self.close(1008, GO_AWAY_IGNORED, at))

    def say(self, names: Sequence[str], now: float) -> None:
        """Say these phrases, after the reply in progress if there is one.

        Raises ConfigError for a phrase that is not the model's.
        """
        if self._dialogue is not None:
            self._dialogue.replies.begin(Reply("control", deque(says(names))), now, 0.0)

    def stall(self, times: int, now: float) -> None:
        """Leave the next ``times`` triggers unanswered."""
        if self._memory is not None:
            self._memory.script.stall(times)

    def refuse_resumption(self, until: float, refusal: RefusalError) -> None:
        """Answer whoever would resume this session with ``refusal``, up to that time."""
        if self._memory is not None:
            self._memory.refused_until, self._memory.refusal = until, refusal

    def lose_handles(self) -> None:
        """From now on nobody knows this session's handles (1008)."""
        if self._memory is not None:
            self._desk.book.forget(self._memory)

    def call(self, name: str, args: Mapping[str, Any], then: Sequence[str], now: float) -> None:
        """Call this function, and say ``then`` once it is answered."""
        if self._dialogue is not None:
            step = Call((ScriptedCall(name=name, args=dict(args)),), says(then))
            self._dialogue.replies.begin(Reply("control", deque([step])), now, 0.0)

    def _receive(self, frame: str | bytes, now: float) -> None:
        if self._refusal is not None:
            raise self._refusal
        kind, body = read_frame(frame, self._version)
        if kind == "setup" and self._desk.record.setup is None:
            self._desk.record.setup = json.loads(frame)["setup"]
        if self._dialogue is not None:
            self._dialogue.receive(kind, body, now)
        elif self.phase is Phase.SETTING_UP:
            self._desk.record.note("early_message", now, message=kind)
            if self._desk.scenario.early_messages == "close":
                raise RefusalError(1008, NOT_IMPLEMENTED)
        elif kind == "setup":
            self._on_setup(body, now)
        else:
            raise invalid_argument()

    def _on_setup(self, body: Json, now: float) -> None:
        self._model = body.get("model", "")
        self._desk.record.note("setup", now, model=self._model)
        self.phase = Phase.SETTING_UP
        setup = accept_setup(self._admit.setup(body), self._version)
        self._model = setup.model
        self._faults.reach("setup", now)
        if not self._muted:
            self.agenda.at(now + self._desk.scenario.setup_delay, lambda at: self._open(setup, at))

    def _open(self, setup: AcceptedSetup, now: float) -> None:
        desk = self._desk
        if self.phase is Phase.CLOSED:
            return
        if setup.handle is None:
            memory = desk.book.open(setup.model, desk.scenario)
            memory.seeding = setup.seeded_history
        else:
            memory = desk.book.resume(setup.handle, setup.model, desk.scenario, now)
            desk.record.note("resumed", now, session=memory.number)
        self.phase = Phase.OPEN
        self._memory = memory
        self._dialogue = Dialogue(desk, Open(setup, memory))
        replies = self._dialogue.replies
        desk.wire.send(frames.setup_complete())
        desk.record.note("setup_complete", now)
        if setup.family.unsolicited_handle or setup.resumption_asked:
            replies.send_handle(now)
        cut, memory.cut = memory.cut, None
        if cut is not None and cut.pcm:
            replies.begin(Reply("resume", deque([cut])), now, 0.0)
        self._start_clocks(now)
        self._faults.reach("ready", now)

    def _start_clocks(self, now: float) -> None:
        self._faults.start_clock(now)
        life = self._desk.scenario.lifetime
        if life.go_away_at is not None:
            self.agenda.at(now + life.go_away_at, lambda at: self.go_away(life.time_left, at))
        if life.close_at is not None:
            self.agenda.at(now + life.close_at, lambda at: self.close(life.code, life.reason, at))
        left = self._admit.seconds_left()
        if left < math.inf:
            self.agenda.at(now + left, lambda at: self.close(1011, TOKEN_RAN_OUT, at))
        if self._desk.scenario.silence_limit is not None:
            self._watch_silence(self._desk.scenario.silence_limit, now)

    def _watch_silence(self, limit: float, now: float) -> None:
        if now - self._heard_at >= limit:
            self.lose_handles()
            self.close(1011, DEADLINE, now)
        else:
            self.agenda.at(self._heard_at + limit, lambda at: self._watch_silence(limit, at))

    def _act(self, fault: Fault, now: float) -> None:
        if self.phase is Phase.CLOSED:
            return
        self._desk.record.note("fault", now, do=fault.do)
        wire = self._desk.wire
        actions: dict[str, Callable[[], None]] = {
            "close": lambda: self.close(fault.code, self._fill(fault.reason), now),
            "abort": lambda: self.abort(now),
            "go_away": lambda: self.go_away(fault.seconds, now),
            "malformed_json": lambda: wire.send_raw(b'{"serverContent": {"modelTurn": '),
            "unknown_message": lambda: wire.send({"novelty": {"level": 1}}),
            "bad_base64": lambda: wire.send(frames.audio_data("@@@ not base64 @@@", role=True)),
            "text_frame": lambda: wire.send_raw('{"serverContent":{}}'),
            "mute": self._mute,
            "slow_pongs": lambda: wire.slow_pongs(fault.seconds),
            "interrupt": lambda: self.interrupt(now),
            "cancel_tools": lambda: self.cancel_tools(now),
        }
        actions[fault.do]()

    def _mute(self) -> None:
        self._muted = True
        self.agenda.close()

    def _fill(self, reason: str) -> str:
        return reason.replace("{model}", self._model).replace("{version}", self._version)

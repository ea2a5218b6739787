"""What is kept of a call, so that another worker can go on with it, and what becomes of it there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from ari_gemini.call.leg import Identity
from ari_gemini.call.line import Line
from ari_gemini.call.transcript import Transcript
from ari_gemini.call.uplink import Uplink
from ari_gemini.errors import StateError
from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import Resume
from ari_gemini.state.keeper import Keeper
from ari_gemini.state.record import CallState
from ari_gemini.state.store import StateStore
from ari_gemini.tools.toolbox import Toolbox

log = structlog.get_logger(__name__)

BACK = (
    "[The call was interrupted for some seconds, in which you were not heard and the caller was not, either. "
    "Tell him in a few words that you are back, and go on from where you both were.]"
)
ASKED = " He had said something last that you had not answered: answer that, or ask him to say it again."
LOST_WORK = "it was interrupted; whether it was done is not known: find out, or tell the caller so"


@dataclass(frozen=True, slots=True)
class Records:
    """Where the calls of a service are kept. ``fingerprint`` names the model that their handles are for."""

    store: StateStore
    fingerprint: str


class Record:
    """One call's record. Without ``records`` nothing is kept and nothing is found."""

    def __init__(
        self, records: Records | None, call_id: str, *, line: Line, transcript: Transcript, uplink: Uplink
    ) -> None:
        self.identity = Identity("")
        self.values: Mapping[str, str] = {}
        self.greeted = False
        """The model has spoken: it need not be told how to begin."""
        self.budgets: Callable[[], dict[str, int]] = dict
        """How much of what a call may cost is gone."""
        self.found: CallState | None = None
        """What another worker kept of the call."""
        self._records = records
        self._call_id = call_id
        self._line = line
        self._transcript = transcript
        self._uplink = uplink
        self._started_at = time.time()
        self._begun = False
        self._keeper = Keeper(records.store, call_id, self._snapshot) if records is not None else None

    async def find(self) -> CallState | None:
        """Look for what another worker kept, and go on from that. Never raises; bounded by the store."""
        if self._records is None:
            return None
        try:
            self.found = found = await self._records.store.load(self._call_id)
        except StateError as error:
            log.warning("call.state_not_found", call=self._call_id, error=str(error))
            return None
        log.info("call.taken_over", call=self._call_id, known=found is not None)
        if found is not None:
            self._started_at = found.started_at
            self._transcript.begin_with(found.transcript)
        return found

    @property
    def resume(self) -> Resume | None:
        """The session to go on with, if it is one of this model."""
        state, records = self.found, self._records
        fits = state is not None and records is not None and state.fingerprint == records.fingerprint
        return state.resume if fits and state is not None else None

    @property
    def age(self) -> float:
        """Seconds since the call began, wherever it did."""
        return max(0.0, time.time() - self._started_at)

    def changed(self) -> None:
        """The record is out of date. Never waits, never raises."""
        if self._keeper is not None:
            self._keeper.changed()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Keep it up to date in a task of its own."""
        self._begun = True
        if self._keeper is not None:
            tasks.create_task(self._keeper.run(), name=f"{self._call_id} state")
            self._keeper.changed()

    async def flush(self) -> None:
        """Write it now, unless the call never came to talk: what a former worker kept is better then. Never
        raises; bounded by the store."""
        if self._keeper is not None and self._begun:
            await self._keeper.flush()

    async def forget(self) -> None:
        """The call is over. Never raises; bounded by the store."""
        if self._keeper is not None:
            await self._keeper.forget()

    def _snapshot(self) -> CallState:
        toolbox, turns = self._line.toolbox, self._transcript.turns()
        spoke = self._line.has_spoken or any(turn.speaker is Speaker.MODEL for turn in turns)
        return CallState(
            call_id=self._call_id,
            agent=self.identity.agent,
            caller_number=self.identity.caller_number,
            caller_name=self.identity.caller_name,
            called_number=self.identity.called_number,
            values=dict(self.values),
            started_at=self._started_at,
            saved_at=time.time(),
            resume=self._line.resume,
            fingerprint="" if self._records is None else self._records.fingerprint,
            transcript=turns,
            open_calls=() if toolbox is None else toolbox.open,
            unconfirmed=() if toolbox is None else toolbox.unconfirmed,
            budgets=self.budgets(),
            greeted=self.greeted or spoke,
            unanswered=self._uplink.unanswered,
        )


def settle_tools(toolbox: Toolbox, state: CallState) -> None:
    """Answer what the former worker left open: its results, and word of those that died with it."""
    lost = [FunctionResult(call.id, call.name, {"error": LOST_WORK}) for call in state.open_calls]
    toolbox.inherit([*state.unconfirmed, *lost])

"""What a call lets its model's tools do: hear a farewell out, hang up, send digits, transfer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from structlog.typing import FilteringBoundLogger

from ari_gemini.audio.dtmf import tones
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.call.conversation import Conversation
from ari_gemini.call.leg import Consultation, Identity, Leg
from ari_gemini.call.signal import first_of
from ari_gemini.errors import AriConflict, AriError, AriNotFound, CallEnded, Cause, ToolError
from ari_gemini.tools.base import FAREWELL_LIMIT, CallControl
from ari_gemini.tools.destination import Destination

TAIL_SECONDS = 0.4
"""Silence after the model's last frame before the line is cut. What was written then waits in Asterisk (a
frame) and in the phone's jitter buffer (up to 200 ms with most phones); the rest is the pause after a
goodbye."""
OPEN_TAIL_SECONDS = 1.0
"""The same while the model has not said that its turn is complete: it may still go on, and was seen to
deliver slower than real time."""
LAST_WORDS_SECONDS = 3.0
"""How long the caller goes on hearing the model after the other party has answered, who waits meanwhile."""
INTRODUCTION_SECONDS = 12.0
"""How long the model may take for its one sentence to the other party, its thinking included."""

CALLED_OFF = (
    "Not done: the caller began to speak, so the call goes on. Listen to him, and call this again when it is "
    "time."
)
PARTY_LEFT = (
    "The caller was not connected: the other party is no longer there. From now on the caller hears you "
    "again: tell him."
)


class Control(CallControl):
    """One call, as its tools see it.

    ``end`` ends the call, ``tell`` gives the model a text as user input and keeps the second one of it,
    ``forget_caller`` drops what the caller said and the model has not been sent, ``away`` is told while he is
    not the one to be heard. ``waits_for_tools``: the model says nothing while a tool works, and goes on in
    the same turn when it is answered.
    """

    def __init__(
        self,
        leg: Leg,
        identity: Identity,
        conversation: Conversation,
        tasks: asyncio.TaskGroup,
        *,
        end: Callable[[Cause, str], None],
        tell: Callable[[str, str], None],
        forget_caller: Callable[[], None],
        away: Callable[[bool], None],
        waits_for_tools: bool,
        log: FilteringBoundLogger,
    ) -> None:
        self._leg = leg
        self._identity = identity
        self._conversation = conversation
        self._downlink = conversation.downlink
        self._tasks = tasks
        self._end = end
        self._tell = tell
        self._forget_caller = forget_caller
        self._away = away
        self._waits_for_tools = waits_for_tools
        self._log = log
        self._asking = False  # the caller is being sent elsewhere: nothing else may end the call meanwhile
        self._consulting = False
        self._digits = asyncio.Lock()

    @property
    def id(self) -> str:
        """The call's id."""
        return self._leg.id

    @property
    def caller_number(self) -> str:
        """Who calls."""
        return self._identity.caller_number

    @property
    def called_number(self) -> str:
        """What he dialled."""
        return self._identity.called_number

    @property
    def consulting(self) -> bool:
        """Whoever is heard now is not the caller but the party of a transfer."""
        return self._consulting

    async def farewell(self) -> None:
        """Wait until the caller has heard all, and a pause after it. Raises ToolError when he speaks.

        After FAREWELL_LIMIT it returns whatever is left. Cancelling just ends the waiting.
        """
        self._not_while_asking()
        await self._leave()
        self._not_while_asking()  # the model may have asked for a transfer in the same breath

    async def _leave(self) -> None:
        """Hear the model out. Raises ToolError when the caller speaks."""
        active = self._conversation.caller_active
        spoke = active.beyond(active.count)
        if await first_of(spoke, self._heard_out(), timeout=FAREWELL_LIMIT) == 0:
            raise ToolError(CALLED_OFF)

    def hang_up(self) -> None:
        """End the call."""
        self._end(Cause.MODEL_HANGUP, "")

    async def send_digits(self, digits: str) -> None:
        """By signalling where Asterisk can, else as tones in the audio. One sequence after another."""
        async with self._digits:
            with self._asterisk(), self._speech_waits():
                signalled = await self._leg.send_digits(digits)
            if not signalled:
                await self._downlink.play_tones(tones(digits, AudioFormat(self._downlink.rate)))

    async def transfer(self, destination: Destination) -> None:
        """Send the caller on once he has heard the model out.

        Raises ToolError when there is no such place, or when he speaks.
        """
        self._not_while_asking()
        self._asking = True  # a hangup that the model asks for besides must not come first
        try:
            with self._asterisk():
                self._leg.go_on_at(destination)
                if not await self._leg.place_exists(destination):
                    raise ToolError(
                        "that place does not exist in the dialplan: tell the caller it cannot be done"
                    )
            await self._leave()
            self._end(Cause.TRANSFERRED, str(destination))
        finally:
            self._asking = False

    async def consult(self, destination: Destination) -> None:
        """Ring the party; when this returns it hears the model. The rest goes on by itself.

        Raises ToolError when the party does not answer, or another one is being asked already.
        """
        self._not_while_asking()
        self._asking = True
        self._away(True)
        handed_over = False
        consultation: Consultation | None = None
        try:
            with self._asterisk():
                consultation = self._leg.consult(destination)
                await consultation.ring()
                await self._last_words()
                self._consulting = True
                await consultation.introduce()
                self._forget_caller()
            introduced = self._conversation.turn_played.count
            self._tasks.create_task(
                self._introduction(consultation, destination, introduced), name=f"{self.id} introduction"
            )
            handed_over = True
        finally:
            if not handed_over:
                if consultation is not None:
                    await consultation.abandon()
                self._asking = self._consulting = False
                self._away(False)

    # How things end well.

    async def _heard_out(self) -> None:
        """Return when the model has said nothing for a while that the caller has not heard, keys included."""
        conversation = self._conversation
        more = conversation.model_audio
        while True:
            said = more.count
            await self._downlink.drained()
            async with self._digits:
                pass
            tail = OPEN_TAIL_SECONDS if conversation.speaking else TAIL_SECONDS
            if await first_of(more.beyond(said), timeout=tail) is None and not self._digits.locked():
                return

    async def _last_words(self) -> None:
        """Let the caller hear the sentence that is being said; the rest is not for the party's ears."""
        await first_of(self._downlink.drained(), timeout=LAST_WORDS_SECONDS)
        if self._waits_for_tools:
            self._conversation.drop_unplayed()
        else:
            self._conversation.cut_off()
        self._downlink.quiet()

    async def _introduction(
        self, consultation: Consultation, destination: Destination, introduced: int
    ) -> None:
        """Join both when the party has heard who calls; bring the caller back if it hangs up before."""
        try:
            party_stays = await self._party_stays(consultation, introduced)
            if party_stays:
                await consultation.join()
        except (AriError, ToolError) as error:
            self._log.warning("call.not_joined", error=str(error))
            party_stays = False
        if party_stays:
            self._end(Cause.TRANSFERRED, str(destination))
            return
        await consultation.abandon()
        self._conversation.cut_off()  # what is left is for the party's ears
        self._asking = self._consulting = False
        self._away(False)
        self._tell(PARTY_LEFT, f"[{PARTY_LEFT}]")  # a later session knows that the party had answered

    async def _party_stays(self, consultation: Consultation, introduced: int) -> bool:
        """Wait for the end of the introduction, or of the time for it. False: the party has hung up."""
        told = self._told(introduced)
        return await first_of(consultation.left(), told, timeout=INTRODUCTION_SECONDS) != 0

    async def _told(self, introduced: int) -> None:
        """Return when a whole turn of the model has been heard since it had said ``introduced`` of them."""
        await self._conversation.turn_played.beyond(introduced)
        await self._heard_out()

    def _not_while_asking(self) -> None:
        if self._asking:
            raise ToolError("the caller is being transferred already: wait")

    @contextmanager
    def _speech_waits(self) -> Iterator[None]:
        self._downlink.hold()
        try:
            yield
        finally:
            self._downlink.release()

    @contextmanager
    def _asterisk(self) -> Iterator[None]:
        """Asterisk's refusals, in words that the model can pass on. The end of the call is the call's."""
        try:
            yield
        except CallEnded as ended:
            self._end(ended.cause, ended.detail)
            raise ToolError("the caller is no longer there") from ended
        except (AriNotFound, AriConflict) as error:
            self._log.info("call.control_refused", error=str(error))
            raise ToolError("the caller is no longer there") from error
        except AriError as error:
            self._log.warning("call.control_failed", error=str(error))
            raise ToolError(
                "the telephone system did not do it: tell the caller that it cannot be done"
            ) from error

"""What is done when a watchdog barks."""

from __future__ import annotations

from collections.abc import Callable

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.call.conversation import Conversation
from ari_gemini.call.line import Line
from ari_gemini.call.model_watch import Fault
from ari_gemini.call.texts import Texts
from ari_gemini.call.watch import Helper
from ari_gemini.errors import Cause

AGAIN_SECONDS = 2.0
"""Silence until the soft tone comes back to a caller who still waits, after he himself or something else was
to be heard, s."""


class Remedies(Helper):
    """For one call. ``give_up`` and ``end`` end it, the first after an apology."""

    def __init__(
        self,
        conversation: Conversation,
        texts: Texts,
        line: Line,
        *,
        give_up: Callable[[Cause, str], None],
        end: Callable[[Cause, str], None],
    ) -> None:
        self._conversation = conversation
        self._texts = texts
        self._line = line
        self._give_up = give_up
        self._end = end

    def nudge(self, text: str, fault: Fault) -> None:
        """Ask the model to go on; what it says must not wait behind its silence."""
        if fault is Fault.SILENT_AUDIO:
            self._conversation.drop_unplayed()
        self._texts.tell(text)

    def comfort(self, on: bool) -> None:
        """Let the caller hear a soft tone; or no longer."""
        downlink = self._conversation.downlink
        if on:
            downlink.fill_at_once(AGAIN_SECONDS, comfort_tone(AudioFormat(downlink.rate)))
        else:
            downlink.stop_filling()

    def reconnect(self, reason: str) -> None:
        """Have the session resumed on another connection; unanswered words are heard there again."""
        self._line.give_up(reason)

    def give_up(self, cause: Cause, detail: str) -> None:
        """End the call with an apology."""
        self._give_up(cause, detail)

    def tell(self, text: str) -> None:
        """Give the model this text."""
        self._texts.tell(text)

    def end(self, cause: Cause, detail: str) -> None:
        """End the call."""
        self._end(cause, detail)

"""The caller's keys on their way to the model: they silence it at once, and reach it as one text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from ari_gemini.call.conversation import Conversation
from ari_gemini.call.digits import DigitSettings, Keypad, Source
from ari_gemini.call.transcript import Transcript

TEXT = "The caller pressed these keys on his phone: {}"
"""What the model is told."""
NOT_SHOWN = "[The caller pressed keys on his phone. They are secret and not known any more.]"
"""What a later session is told of keys that no record may hold."""


class Keys:
    """One caller's keys. ``tell`` gives the model a text as user input, and keeps the second one of it."""

    def __init__(
        self,
        conversation: Conversation,
        tell: Callable[[str, str], None],
        log: FilteringBoundLogger,
        transcript: Transcript,
    ) -> None:
        self._conversation = conversation
        self._tell = tell
        self._log = log
        self._transcript = transcript
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._interrupts = True
        self._sensitive = True
        self._keypad = Keypad(DigitSettings())

    def configure(self, settings: DigitSettings, *, interrupts: bool) -> None:
        """What the agent wants. ``interrupts`` false: the model finishes its sentence first."""
        self._keypad.settings = settings
        self._sensitive = self._transcript.discreet = settings.sensitive
        self._interrupts = interrupts

    def pressed(self, digit: str, source: Source) -> None:
        """One report of a key."""
        now = self._loop.time()
        if self._stopped or not self._keypad.is_new(digit, source, now):
            return
        self._conversation.caller_began()
        if self._interrupts:
            self._conversation.cut_off()
        self._entered(self._keypad.press(digit, now))

    def stop(self) -> None:
        """Take no key and tell nothing more. Idempotent."""
        self._stopped = True
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _entered(self, entry: str | None) -> None:
        self._cancel_timer()
        if entry is not None:
            self._log.info("call.keys", keys="*" * len(entry) if self._sensitive else entry)
            if self._sensitive:
                self._transcript.hide(entry)
            text = TEXT.format(entry)
            self._tell(text, NOT_SHOWN if self._sensitive else f"[{text}]")
        elif self._keypad.deadline is not None:
            self._timer = self._loop.call_at(self._keypad.deadline, self._timed_out)

    def _timed_out(self) -> None:
        self._entered(self._keypad.expire(self._loop.time()))

"""Texts for the model: what the caller typed, and what happened to the call. They wait for a session that may
take them, and go out in order; one that a connection took with it is sent again on the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ari_gemini.realtime.session import RealtimeSession
from ari_gemini.realtime.unconfirmed import Unconfirmed

MAX_TEXTS = 16
"""Texts that may wait: a caller who types ahead while a tool works. The oldest goes, as it would from
memory."""


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """One of them: two may read the same."""

    text: str


class Texts:
    """One call's texts. ``tell`` never waits. ``on_sent`` is called for each that went out. ``note`` gets, of
    each that is to be remembered, what a later session is told of it: nothing as long as it waits, for then
    it goes to that session anyway."""

    def __init__(self) -> None:
        self.dropped = 0
        self.on_sent: Callable[[], None] = lambda: None
        self.note: Callable[[Callable[[], str]], None] = lambda _: None
        self._waiting: deque[_Text] = deque()
        self._unconfirmed: Unconfirmed[_Text] = Unconfirmed(MAX_TEXTS)
        self._held = False
        self._ready = asyncio.Event()

    def tell(self, text: str, keep: str = "") -> None:
        """Have the model be told this. ``keep``: what is remembered of it."""
        told = _Text(text)
        if len(self._waiting) >= MAX_TEXTS:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(told)
        if keep:
            self.note(lambda: "" if told in self._waiting else keep)
        self._look()

    def hold(self, held: bool) -> None:
        """While held, nothing goes out: a tool works, and the model would be upset by input."""
        self._held = held
        self._look()

    async def run(self, session: RealtimeSession) -> None:
        """Send until cancelled, beginning with what has gathered. Raises SessionError when the session ends;
        the text that it did not take stays the first."""
        while True:
            while not self._ready.is_set():  # it may be held again before this wakes
                await self._ready.wait()
            text = self._waiting.popleft()  # out of the way of one that needs its place
            try:
                await session.send_text(text.text)
            except BaseException:  # whatever it is, cancelling included: it was not taken, and that goes on
                self._waiting.appendleft(text)
                raise
            finally:
                self._look()
            self._unconfirmed.settle(session.confirmed)
            self._unconfirmed.sent(session.sent, text)
            self.on_sent()

    def recover(self, confirmed: int) -> None:
        """A session is over of which the first ``confirmed`` messages arrived: what did not, waits again."""
        self._unconfirmed.settle(confirmed)
        for text in reversed(self._unconfirmed.take()):
            if len(self._waiting) < MAX_TEXTS:
                self._waiting.appendleft(text)
            else:
                self.dropped += 1
        self._look()

    def _look(self) -> None:
        if self._waiting and not self._held:
            self._ready.set()
        else:
            self._ready.clear()

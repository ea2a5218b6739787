"""What was said, kept for a model that has to be told. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.session import HistoryTurn
from ari_gemini.state.record import MAX_CHARS, MAX_TURNS


class Transcript:
    """One call's words, turn by turn. Increments of one speaker are put together until the other speaks.

    Bounded as its record is: each later turn of a model that was told all of it pays for it again.
    """

    def __init__(self) -> None:
        self._turns: deque[tuple[Speaker, list[str]]] = deque()
        self._chars = 0

    def add(self, speaker: Speaker, text: str) -> None:
        """More words of that speaker."""
        if not text:
            return
        if not self._turns or self._turns[-1][0] is not speaker:
            self._turns.append((speaker, []))
        self._turns[-1][1].append(text)
        self._chars += len(text)
        while len(self._turns) > 1 and (self._chars > MAX_CHARS or len(self._turns) > MAX_TURNS):
            _, gone = self._turns.popleft()
            self._chars -= sum(map(len, gone))
        if self._chars > MAX_CHARS:  # one endless turn
            words = "".join(self._turns[0][1])[-MAX_CHARS:]
            self._turns[0] = (self._turns[0][0], [words])
            self._chars = len(words)

    def begin_with(self, turns: Iterable[HistoryTurn]) -> None:
        """Words of a conversation that this one goes on with."""
        for turn in turns:
            self.add(turn.speaker, turn.text)

    def turns(self, *, without_caller: bool = False) -> tuple[HistoryTurn, ...]:
        """All of it, the oldest first. ``without_caller``: but for his last words, which are heard again."""
        turns = [HistoryTurn(speaker, "".join(texts).strip()) for speaker, texts in self._turns]
        if without_caller and turns and turns[-1].speaker is Speaker.CALLER:
            turns.pop()
        return tuple(turn for turn in turns if turn.text)

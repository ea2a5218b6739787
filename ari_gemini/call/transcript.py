"""What was said, typed and done, kept for a model that has to be told. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.session import HistoryTurn
from ari_gemini.state.record import MAX_CHARS, MAX_TURNS, newest

MAX_SECRETS = 64
"""Secret entries that are looked for in what is told: more than anybody types in one call."""


@dataclass(slots=True)
class _Turn:
    """Words of one speaker, in increments, or a note, which is put into words when it is asked for."""

    speaker: Speaker
    texts: list[str] = field(default_factory=list)
    note: Callable[[], str] | None = None
    acted: bool = False
    """The model did something about what it had heard before."""


class Transcript:
    """One call's words, turn by turn. Increments of one speaker are put together until the other speaks.

    Between them stands in brackets, as if the caller had written it, what he typed and what tools did:
    whoever notes that says when asked what of it is to be told by now. Bounded as its record is: each later
    turn of a model that was told all of it pays for it again.
    """

    def __init__(self) -> None:
        self.discreet = False
        """Keys are secret: arguments, into which a model puts them, are told by their names."""
        self._turns: deque[_Turn] = deque()
        self._chars = 0  # of what was spoken
        self._secrets: deque[re.Pattern[str]] = deque(maxlen=MAX_SECRETS)

    def add(self, speaker: Speaker, text: str) -> None:
        """More words of that speaker."""
        if not text:
            return
        newest_turn = self._turns[-1] if self._turns else None
        if newest_turn is None or newest_turn.note is not None or newest_turn.speaker is not speaker:
            self._turns.append(_Turn(speaker))
        self._turns[-1].texts.append(text)
        self._chars += len(text)
        self._trim()
        if self._chars > MAX_CHARS:  # one endless turn
            words = "".join(self._turns[0].texts)[-MAX_CHARS:]
            self._turns[0].texts = [words]
            self._chars = len(words)

    def told(self, words: Callable[[], str]) -> None:
        """The model is told something that is not spoken. ``words`` gives nothing while that is still to be
        told to any session that comes."""
        self._turns.append(_Turn(Speaker.CALLER, note=words))
        self._trim()

    def done(self, words: Callable[[bool], str]) -> None:
        """The model does something. ``words``, with True for discreet ones, may change with what comes of
        it."""
        self._turns.append(_Turn(Speaker.CALLER, note=lambda: words(self.discreet), acted=True))
        self._trim()

    def hide(self, keys: str) -> None:
        """These are a secret: notes show them no more, however they are grouped."""
        # digits alone must not be found in the middle of others; what may stand between two keys is no key,
        # so that there is one way only to match
        body = "[^0-9*#A-D]{0,4}".join(map(re.escape, keys))
        self._secrets.append(re.compile(rf"(?<!\d){body}(?!\d)"))

    def begin_with(self, turns: Iterable[HistoryTurn]) -> None:
        """Words of a conversation that this one goes on with."""
        for turn in turns:
            if turn.note:
                self.done(lambda _, text=turn.text: text)  # type: ignore[misc]
            else:
                self.add(turn.speaker, turn.text)

    def turns(self, *, without_caller: bool = False) -> tuple[HistoryTurn, ...]:
        """All of it, the oldest first. ``without_caller``: but for the last words that he spoke, which are
        heard again."""
        turns = list(self._turns)
        if without_caller:
            for at in reversed(range(len(turns))):
                if turns[at].acted or turns[at].speaker is Speaker.MODEL:
                    break
                if turns[at].note is None:
                    del turns[at]
        told = (HistoryTurn(turn.speaker, self._text(turn), turn.note is not None) for turn in turns)
        return newest([turn for turn in told if turn.text])

    def _text(self, turn: _Turn) -> str:
        if turn.note is None:
            return "".join(turn.texts).strip()
        text = turn.note()
        for secret in self._secrets:
            text = secret.sub("***", text)
        return text

    def _trim(self) -> None:
        """Drop the oldest. Notes count when they are put into words: they change their length."""
        while len(self._turns) > 1 and (self._chars > MAX_CHARS or len(self._turns) > MAX_TURNS):
            self._chars -= sum(map(len, self._turns.popleft().texts))

"""The keys a caller presses: two reports of each joined, keys collected into entries. Pure.

Asterisk reports a key twice, as the ARI event ChannelDtmfReceived and as AudioSocket message 0x03, and
either report may be missing: without ARI, before the media connection stands, in an outage. A report is the
second one of its key when the same digit, reported the other way a moment ago, has had no second one yet.

Once the media has reported a key, it alone counts. Asterisk holds a key back that follows the one before by
less than 45 ms, and tells ARI of it again when its time has come (``__ast_read`` in ``main/channel.c``): the
keys of a dialling machine may come doubled there; what is bridged hears each one once. Until then both count:
before the bridge there is ARI alone, and ``chan_audiosocket`` of an old Asterisk reports none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

TWIN_SECONDS = 1.0
"""Both reports of a key lie milliseconds apart; a second leaves room for a stalled event connection."""


class DigitSettings(BaseModel):
    """``[agents.NAME.digits]``: how keys are gathered before the model is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    terminator: str = Field(default="#", pattern=r"^[0-9*#A-D]?$")
    """Ends an entry and is no part of it; empty: none does."""
    timeout: float = Field(default=2.0, gt=0, le=60)
    """Seconds without a key that end an entry."""
    maximum: int = Field(default=32, ge=1, le=128)
    """So many keys end an entry."""
    sensitive: bool = False
    """They are a secret: no log and no trace shows them. The model gets them all the same."""


class Source(Enum):
    """Who reported a key."""

    SIGNALLING = "signalling"
    """ARI's ChannelDtmfReceived."""
    MEDIA = "media"
    """AudioSocket's 0x03."""


@dataclass(slots=True)
class _Report:
    digit: str
    source: Source
    at: float


class Keypad:
    """Collects one caller's keys. All times are seconds of one clock, handed in."""

    def __init__(self, settings: DigitSettings) -> None:
        self.settings = settings
        """May be exchanged at any time; an entry under way ends by the new ones."""
        self._single: deque[_Report] = deque()
        """Reports that have had no second one yet; they leave after TWIN_SECONDS, so few can be here."""
        self._entry = ""
        self.deadline: float | None = None
        """When the entry under way ends by itself."""
        self._media_tells = False

    @property
    def entry(self) -> str:
        """What has been gathered of the entry under way."""
        return self._entry

    def is_new(self, digit: str, source: Source, now: float) -> bool:
        """Whether this report is the first one of its key."""
        if source is Source.MEDIA:
            self._media_tells = True
        elif self._media_tells:
            return False
        single = self._single
        while single and now - single[0].at > TWIN_SECONDS:
            single.popleft()
        for report in single:
            if report.digit == digit and report.source is not source:
                single.remove(report)
                return False
        single.append(_Report(digit, source, now))
        return True

    def press(self, digit: str, now: float) -> str | None:
        """Take a new key. Returns the entry that it completes, which is the terminator when nothing else was
        pressed, or None."""
        settings = self.settings
        if digit == settings.terminator:
            return self._complete() or digit
        self._entry += digit
        if len(self._entry) >= settings.maximum:
            return self._complete()
        self.deadline = now + settings.timeout
        return None

    def expire(self, now: float) -> str | None:
        """The entry that ``now`` has ended, or None."""
        if self.deadline is None or now < self.deadline:
            return None
        return self._complete()

    def _complete(self) -> str:
        entry, self._entry = self._entry, ""
        self.deadline = None
        return entry

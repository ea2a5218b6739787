"""What a caller hears instead of nothing while a tool is at work: words once, then a loop."""

from __future__ import annotations

import math

from ari_gemini.audio.pcm import SAMPLE_BYTES, AudioFormat
from ari_gemini.audio.playout import FRAME_S


class Filler:
    """Says what to put into silent 20 ms deadlines.

    When the caller has heard nothing for ``after_s`` seconds, ``prompt`` is played, and then ``loop`` over
    and over. Whatever interrupts it, the loop begins anew after as long a silence; the prompt never does.
    Each deadline is told to one of ``silence``, ``speech`` and ``other``: time is counted in frames.
    """

    def __init__(self, fmt: AudioFormat, after_s: float, prompt: bytes, loop: bytes) -> None:
        """``prompt`` and ``loop`` may be empty; each is filled up with silence to whole frames.

        Raises ValueError when one of them ends within a sample or ``after_s`` is negative.
        """
        if after_s < 0:
            raise ValueError(f"{after_s} s of silence cannot be")
        self._size = fmt.frame_bytes
        self._loop = whole_frames(loop, fmt)
        self._patience = frames_in(after_s)
        self._waited = 0
        self._sound = whole_frames(prompt, fmt)
        self._at = 0
        self._left = math.inf
        self._lingers = False

    @property
    def over(self) -> bool:
        """Its time is up: it has nothing more to say."""
        return self._left <= 0

    def silence(self) -> bytes | None:
        """A deadline without anything to be heard: the frame to play instead. None: let it be silent."""
        self._left -= 1
        if self._waited < self._patience:
            self._waited += 1
            return None
        if self._at == len(self._sound):
            self._sound, self._at = self._loop, 0
        begin = self._at
        self._at = min(begin + self._size, len(self._sound))
        return self._sound[begin : self._at] or None

    def speech(self) -> None:
        """A deadline at which the model speaks, which is what lingering waits for."""
        self.other()
        if self._lingers:
            self._left = 0

    def other(self) -> None:
        """A deadline at which the caller hears something else, or shall hear nothing."""
        self._left -= 1
        self.quiet()

    def quiet(self) -> None:
        """End what sounds, and begin to count silence anew."""
        self._waited = 0
        if self._at:
            self._sound, self._at = self._loop, 0

    def stay(self) -> None:
        """Begin at once, and go on until told otherwise: linger no longer."""
        self._waited = self._patience
        self._lingers = False
        self._left = math.inf

    def linger(self, seconds: float) -> None:
        """Go on for at most ``seconds`` more, or until the model speaks."""
        self._lingers = True
        self._left = min(self._left, frames_in(seconds))


def frames_in(seconds: float) -> int:
    """20 ms frames that are at least as long."""
    return math.ceil(round(seconds / FRAME_S, 6))


def whole_frames(pcm: bytes, fmt: AudioFormat) -> bytes:
    """``pcm`` and silence up to the end of the frame. Raises ValueError when it ends within a sample."""
    if len(pcm) % SAMPLE_BYTES:
        raise ValueError(f"{len(pcm)} bytes are not whole 16-bit samples")
    return pcm + bytes(-len(pcm) % fmt.frame_bytes)

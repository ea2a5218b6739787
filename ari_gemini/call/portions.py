"""How a row of keys is handed to Asterisk, which does nothing else on the channel while it plays them. Pure.

Measured on Asterisk 22.10.1: a request begins to sound after 100 ms (``main/app.c``, ``dtmf_stream``), each
key takes its tone and its gap, and a tone is never shorter than 100 ms. Until the last gap is over, answer,
variables and bridges of that channel wait; a hangup and the reading of variables do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TONE_MS = 100
"""ITU-T Q.24 asks receivers to take 40 ms; Asterisk plays no less than 100."""
GAP_MS = 60
"""ITU-T Q.24: a receiver must see 40 ms between two signals; some jitter is allowed for."""
LEAD_MS = 100
"""What Asterisk waits before the first key of a request."""
PAUSE_MS = 500
"""A ``w``, as in Asterisk's own ``SendDTMF()``."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Keys for one request, or none: a pause. ``seconds``: how long it takes."""

    keys: str
    seconds: float


def portions(digits: str, longest: float) -> Iterator[Portion]:
    """Cut ``digits`` (keys and ``w``) into requests of at most ``longest`` seconds, but of one key at
    least."""
    size = max(1, int((longest * 1000 - LEAD_MS) / (TONE_MS + GAP_MS)))
    for run in re.findall(r"[wW]+|[^wW]+", digits):
        if run[0] in "wW":
            yield Portion("", len(run) * PAUSE_MS / 1000)
            continue
        for at in range(0, len(run), size):
            keys = run[at : at + size]
            yield Portion(keys, (LEAD_MS + len(keys) * (TONE_MS + GAP_MS)) / 1000)

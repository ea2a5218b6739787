"""Five minutes of the soak where ``ARI_GEMINI_SOAK_MINUTES`` says so; ``make soak`` runs an hour."""

from __future__ import annotations

import os

import pytest
from harness.asterisk import Asterisk
from soak import soak

pytestmark = [pytest.mark.asterisk, pytest.mark.soak]

MINUTES = float(os.environ.get("ARI_GEMINI_SOAK_MINUTES") or 0)


@pytest.mark.skipif(not MINUTES, reason="a soak of so many minutes: ARI_GEMINI_SOAK_MINUTES")
async def test_calls_come_and_go_while_everything_fails(asterisk: Asterisk) -> None:
    tally = await soak(asterisk, minutes=MINUTES, calls=20, seed=1)
    print(f"\n{tally.table()}")
    assert tally.violations == []
    assert tally.calls >= 20
    assert tally.faults

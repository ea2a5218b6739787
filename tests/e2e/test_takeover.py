"""A worker is killed with calls up, and another one goes on with every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.asterisk import PHONES, Asterisk
from harness.phone import PhoneMaker
from harness.takeover import kill_and_take_over

pytestmark = pytest.mark.asterisk

WITHIN = 3.0
"""Seconds from the kill until the caller is connected to a model again: Asterisk tries once in 0.5 s, the
model takes 0.4 s, and may refuse to resume in the first second."""
RESTART = 5.0
"""The same where the process itself must be started anew first."""


@pytest.mark.parametrize("is_outbound", [True, False], ids=["another_runs", "started_anew"])
async def test_callers_outlive_their_worker(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path, is_outbound: bool
) -> None:
    calls, within = (10, WITHIN) if is_outbound else (3, RESTART)
    phones = [await phone(number) for number in PHONES[:calls]]
    went = await kill_and_take_over(asterisk, tmp_path / "workers", phones, is_outbound=is_outbound)
    for trial in went.trials:
        print(f"\n{trial.endured}, {trial.arrival}")
    print(f"\nconnected again after {[round(seconds, 2) for seconds in went.back]} s")
    assert [trial.complaints for trial in went.trials] == [[]] * calls
    assert len(went.back) == calls
    assert max(went.back) <= within

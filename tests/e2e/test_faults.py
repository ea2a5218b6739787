"""Every fault once, on a real Asterisk and real phones: calls outlive it and lose no sample of the caller."""

from __future__ import annotations

import pytest
from harness.asterisk import PHONES, Asterisk
from harness.faults import FAULTS, Fault, Trial, run, run_common
from harness.phone import PhoneMaker
from harness.scene import Caller, staged

pytestmark = pytest.mark.asterisk

AT_ONCE = 7
"""Faults of single calls that are tried at the same time, each on a phone of its own."""
SINGLE = [fault for fault in FAULTS if fault.each]
COMMON = [fault for fault in FAULTS if not fault.each]


def told(trial: Trial) -> str:
    return f"\n{trial.fault}: {trial.endured}, {trial.arrival}"


@pytest.fixture(scope="module")
def tried() -> dict[str, Trial]:
    """Results so far, by the fault's name: faults are tried in groups, with the first that is asked for."""
    return {}


def group(request: pytest.FixtureRequest, wanted: Fault) -> list[Fault]:
    """The faults to be tried together with ``wanted``: of those this run was asked for."""
    chosen = {
        item.callspec.params["fault"].name
        for item in request.session.items
        if hasattr(item, "callspec") and isinstance(item.callspec.params.get("fault"), Fault)
    }
    faults = [fault for fault in SINGLE if fault.name in chosen]
    begin = faults.index(wanted) // AT_ONCE * AT_ONCE
    return faults[begin : begin + AT_ONCE]


@pytest.mark.parametrize("fault", SINGLE, ids=lambda fault: fault.name)
async def test_a_call_outlives(
    request: pytest.FixtureRequest,
    asterisk: Asterisk,
    phone: PhoneMaker,
    tried: dict[str, Trial],
    fault: Fault,
) -> None:
    if fault.name not in tried:
        faults = group(request, fault)
        async with staged(asterisk) as scene:
            phones = [await phone(number) for number in PHONES[: len(faults)]]
            callers = [Caller(scene.bot.gemini, each) for each in phones]
            trials = await run(scene, list(zip(faults, callers, strict=True)))
        tried |= {trial.fault: trial for trial in trials}
    print(told(tried[fault.name]))
    assert tried[fault.name].complaints == []


@pytest.mark.parametrize("fault", COMMON, ids=lambda fault: fault.name)
async def test_all_calls_outlive(asterisk: Asterisk, phone: PhoneMaker, fault: Fault) -> None:
    async with staged(asterisk, with_redis=fault.with_redis) as scene:
        phones = [await phone(number) for number in PHONES[:3]]
        trials = await run_common(scene, fault, [Caller(scene.bot.gemini, each) for each in phones])
    for trial in trials:
        print(told(trial))
    assert [trial.complaints for trial in trials] == [[]] * 3

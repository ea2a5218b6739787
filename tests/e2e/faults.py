"""Every fault many times, and the README's table of what a caller notices of each.

    python tests/e2e/faults.py --runs 20

Several calls at once, each on a phone of its own; all figures come from the phones' wires. Prints Markdown.
The exit code is 1 when a call did not outlive its fault.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from harness.asterisk import PHONES, Asterisk
from harness.faults import FAULTS, Fault, Trial, run, run_common
from harness.phone import Phone
from harness.restart import ASTERISK_KILLED, Restart, kill_and_call_again
from harness.scene import Caller, phone_directory, staged
from harness.takeover import CLASSIC_KILLED, OUTBOUND_KILLED, REDIS_KILLED, kill_and_take_over

AT_ONCE = 5
"""Calls: what two cores carry besides five phones, Asterisk and the simulator without being late."""
HEAD = """\
| Fault | Silence, p50 / max, ms | Without the model's voice, p50 / max, ms | Lost words, ms | Repeated to the model, p50 / max, ms | Frame gap p99, ms | Outlived |
|---|---|---|---|---|---|---|"""  # noqa: E501


def row(name: str, trials: Sequence[Trial]) -> str:
    """One fault's line of the table."""
    measured = [t for t in trials if t.endured is not None and t.arrival is not None]
    silence = [t.endured.silence_ms for t in measured if t.endured]
    voiceless = [t.endured.voiceless_ms for t in measured if t.endured]
    gaps = [t.endured.gap_p99_ms for t in measured if t.endured]
    repeated = [t.arrival.repeated_ms for t in measured if t.arrival]
    lost = [t.arrival.lost_speech_ms for t in measured if t.arrival]
    survived = sum(not t.complaints for t in trials)
    cells = [
        name,
        _spread(silence),
        _spread(voiceless),
        f"{max(lost):.0f}" if lost else "-",
        _spread(repeated),
        f"{max(gaps):.1f}" if gaps else "-",
        f"{survived} of {len(trials)}",
    ]
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} / {max(values):.0f}" if values else "-"


async def batch(asterisk: Asterisk, work: Path, faults: Sequence[Fault]) -> list[Trial]:
    """One call for each of these faults, at once; a common fault befalls all of them."""
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(staged(asterisk, with_redis=faults[0].with_redis))
        callers = []
        for number, _ in zip(PHONES, faults, strict=False):
            phone = Phone(phone_directory(work, number), asterisk, number)
            callers.append(Caller(scene.bot.gemini, await stack.enter_async_context(phone)))
        if faults[0].each:
            return await run(scene, list(zip(faults, callers, strict=True)))
        return await run_common(scene, faults[0], callers)


async def suite(asterisk: Asterisk, work: Path, runs: int, chosen: Sequence[Fault]) -> dict[str, list[Trial]]:
    """All trials by the fault's name; what went wrong is told as it happens."""
    results: dict[str, list[Trial]] = {fault.name: [] for fault in chosen}
    single = [fault for _ in range(runs) for fault in chosen if fault.each]
    batches = [single[at : at + AT_ONCE] for at in range(0, len(single), AT_ONCE)]
    for fault in (fault for fault in chosen if not fault.each):
        batches += [[fault] * min(AT_ONCE, runs - done) for done in range(0, runs, AT_ONCE)]
    for number, faults in enumerate(batches, 1):
        print(f"{number} of {len(batches)}: {', '.join(f.name for f in faults)}", file=sys.stderr)
        for trial in await batch(asterisk, work, faults):
            results[trial.fault].append(trial)
            _complain(trial)
    return results


async def takeovers(asterisk: Asterisk, work: Path, runs: int, name: str) -> list[Trial]:
    """The same for workers that are killed."""
    trials: list[Trial] = []
    for done in range(0, runs, AT_ONCE):
        print(f"{name}: {done} of {runs}", file=sys.stderr)
        async with AsyncExitStack() as stack:
            phones = [
                await stack.enter_async_context(Phone(phone_directory(work, number), asterisk, number))
                for number in PHONES[: min(AT_ONCE, runs - done)]
            ]
            went = await kill_and_take_over(asterisk, phone_directory(work, "workers"), phones, name)
        for trial in went.trials:
            _complain(trial)
        trials += went.trials
    return trials


async def restarts(asterisk: Asterisk, work: Path, runs: int) -> list[Restart]:
    """Asterisk itself is killed: two callers are lost each time, and two others served."""
    went = []
    for number in range(runs):
        print(f"{ASTERISK_KILLED}: {number} of {runs}", file=sys.stderr)
        async with AsyncExitStack() as stack:
            phones = [
                await stack.enter_async_context(Phone(phone_directory(work, number), asterisk, number))
                for number in PHONES[:4]
            ]
            went.append(await kill_and_call_again(asterisk, phones[:2], phones[2:]))
    return went


def _complain(trial: Trial) -> None:
    for complaint in trial.complaints:
        print(f"NOT OUTLIVED  {trial.fault}: {complaint}", file=sys.stderr)


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description="Every fault many times, as a table.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    chosen = [fault for fault in FAULTS if arguments.only in fault.name]
    killed = [n for n in (OUTBOUND_KILLED, REDIS_KILLED, CLASSIC_KILLED) if arguments.only in n]
    restarted: list[Restart] = []
    with tempfile.TemporaryDirectory() as directory:
        asterisk = Asterisk(Path(directory) / "asterisk-of-the-faults")
        try:
            asterisk.start()
            results = asyncio.run(suite(asterisk, Path(directory), arguments.runs, chosen))
            for name in killed:
                results[name] = asyncio.run(takeovers(asterisk, Path(directory), arguments.runs, name))
            if arguments.only in ASTERISK_KILLED:
                restarted = asyncio.run(restarts(asterisk, Path(directory), arguments.runs))
        finally:
            asterisk.close()
    print(HEAD)
    for name, trials in results.items():
        print(row(name, trials))
    if restarted:
        connected = _spread([1000 * went.connected for went in restarted])
        greeted = _spread([1000 * seconds for went in restarted for seconds in went.greeted])
        print(
            f"\n{ASTERISK_KILLED}, {len(restarted)} times, p50 / max, ms: reached again {connected} after it "
            f"was up; the next callers heard the model {greeted} after they dialled"
        )
    return 1 if any(trial.complaints for trials in results.values() for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every fault many times, and the README's table of what a caller notices of each.

    python tests/e2e/faults.py --runs 20

Several calls at once, each on a phone of its own; all figures come from the phones' wires. Prints Markdown.
The exit code is 1 when a call did not outlive its fault. Stopped by SIGTERM it prints what it has.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from harness.asterisk import PHONES, Asterisk, AsteriskCrashed
from harness.faults import FAULTS, Fault, Trial, run, run_common
from harness.phone import Phone
from harness.restart import ASTERISK_KILLED, Restart, kill_and_call_again
from harness.scene import Caller, phone_directory, staged
from harness.takeover import CLASSIC_KILLED, OUTBOUND_KILLED, REDIS_KILLED, kill_and_take_over

AT_ONCE = 6
"""Calls: what two cores carry besides six phones, Asterisk and the simulator without being late."""
CRASHES = 3
"""So often Asterisk may crash by itself before nothing more is tried."""
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


Results = dict[str, list[Trial]]
"""By the fault's name."""


async def suite(asterisk: Asterisk, work: Path, runs: int, chosen: Sequence[Fault], results: Results) -> None:
    """All trials; what went wrong is told as it happens."""
    results |= {fault.name: [] for fault in chosen}
    single = [fault for _ in range(runs) for fault in chosen if fault.each]
    batches = [single[at : at + AT_ONCE] for at in range(0, len(single), AT_ONCE)]
    for fault in (fault for fault in chosen if not fault.each):
        batches += [[fault] * min(AT_ONCE, runs - done) for done in range(0, runs, AT_ONCE)]
    for number, faults in enumerate(batches, 1):
        print(f"{number} of {len(batches)}: {', '.join(f.name for f in faults)}", file=sys.stderr)
        for trial in await batch(asterisk, work, faults):
            results[trial.fault].append(trial)
            _complain(trial)


async def takeovers(asterisk: Asterisk, work: Path, runs: int, name: str, trials: list[Trial]) -> None:
    """The same for workers that are killed."""
    crashes = 0
    while len(trials) < runs and crashes <= CRASHES:
        print(f"{name}: {len(trials)} of {runs}", file=sys.stderr)
        try:
            async with AsyncExitStack() as stack:
                phones = [
                    await stack.enter_async_context(Phone(phone_directory(work, number), asterisk, number))
                    for number in PHONES[: min(AT_ONCE, runs - len(trials))]
                ]
                went = await kill_and_take_over(asterisk, phone_directory(work, "workers"), phones, name)
        except AsteriskCrashed as crashed:
            crashes += 1
            print(f"ASTERISK CRASHED  {crashed}; once more", file=sys.stderr)
            await asterisk.restart()
            continue
        for trial in went.trials:
            _complain(trial)
        trials += went.trials


async def restarts(asterisk: Asterisk, work: Path, runs: int, went: list[Restart]) -> None:
    """Asterisk itself is killed: two callers are lost each time, and two others served."""
    for done in range(runs):
        print(f"{ASTERISK_KILLED}: {done} of {runs}", file=sys.stderr)
        async with AsyncExitStack() as stack:
            phones = [
                await stack.enter_async_context(Phone(phone_directory(work, number), asterisk, number))
                for number in PHONES[:4]
            ]
            went.append(await kill_and_call_again(asterisk, phones[:2], phones[2:]))


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: Results = {}
    with tempfile.TemporaryDirectory() as directory, suppress(KeyboardInterrupt):
        work, runs = Path(directory), arguments.runs
        asterisk = Asterisk(work / "asterisk-of-the-faults")
        try:
            asterisk.start()
            asyncio.run(suite(asterisk, work, runs, chosen, results))
            for name in killed:
                asyncio.run(takeovers(asterisk, work, runs, name, results.setdefault(name, [])))
            if arguments.only in ASTERISK_KILLED:
                asyncio.run(restarts(asterisk, work, runs, restarted))
        finally:
            asterisk.close()
    print(table(results, restarted))
    return 1 if any(trial.complaints for trials in results.values() for trial in trials) else 0


def table(results: Results, restarted: Sequence[Restart]) -> str:
    """Everything measured, as Markdown."""
    lines = [HEAD, *(row(name, trials) for name, trials in results.items())]
    if restarted:
        connected = _spread([1000 * went.connected for went in restarted])
        greeted = _spread([1000 * seconds for went in restarted for seconds in went.greeted])
        lines.append(
            f"\n{ASTERISK_KILLED}, {len(restarted)} times, p50 / max, ms: reached again {connected} after it "
            f"was up; the next callers heard the model {greeted} after they dialled"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

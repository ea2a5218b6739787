"""Keys: each one once, whichever way and however late it is reported; entries that end as they should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.call.digits import TWIN_SECONDS, DigitSettings, Keypad, Source

SIGNALLING, MEDIA = Source.SIGNALLING, Source.MEDIA
TICKS = 64
"""In a second: a power of two, so that sums of times are exact."""
TWIN_TICKS = int(TWIN_SECONDS * TICKS)


def keypad(**settings) -> Keypad:
    return Keypad(DigitSettings(**settings))


def typed(pad: Keypad, keys: str, at: float = 0.0) -> list[str | None]:
    return [pad.press(key, at) for key in keys]


# Two reports of one key.


def new_keys(reports: list[tuple[int, str, Source]]) -> str:
    """What is new of reports in the order of their arrival; times in ticks."""
    pad = keypad()
    return "".join(digit for at, digit, source in reports if pad.is_new(digit, source, at / TICKS))


def test_the_second_report_of_a_key_is_not_new() -> None:
    assert new_keys([(0, "5", SIGNALLING), (1, "5", MEDIA)]) == "5"
    assert new_keys([(0, "5", MEDIA), (1, "5", SIGNALLING)]) == "5"


def test_the_same_key_pressed_again_is_new() -> None:
    """Both reports of the first one may come before, between or after those of the second one."""
    for order in ("SMSM", "SSMM", "SMMS", "MSSM"):
        reports = [(n, "5", SIGNALLING if source == "S" else MEDIA) for n, source in enumerate(order)]
        assert new_keys(reports) == "55", order


def test_twins_are_at_most_so_far_apart() -> None:
    assert new_keys([(0, "5", SIGNALLING), (TWIN_TICKS, "5", MEDIA)]) == "5"
    assert new_keys([(0, "5", SIGNALLING), (TWIN_TICKS + 1, "5", MEDIA)]) == "55"


def test_another_key_is_no_twin() -> None:
    assert new_keys([(0, "5", SIGNALLING), (1, "6", MEDIA)]) == "56"


def test_reports_of_one_kind_alone_are_all_new() -> None:
    assert new_keys([(n, "5", MEDIA) for n in range(10)]) == "5" * 10


def test_nothing_is_remembered_for_longer_than_it_can_matter() -> None:
    pad = keypad()
    for n in range(1000):
        pad.is_new("5", MEDIA, float(n))
    assert len(pad._single) <= 2


keys = st.sampled_from("0123456789*#ABCD")
gaps = st.integers(0, 2 * TWIN_TICKS)
delays = st.integers(0, TWIN_TICKS)


def arrivals(
    pressed: list[tuple[int, str]], late: list[int], source: Source
) -> list[tuple[int, str, Source]]:
    """One way's reports: it may delay them, but never lets one overtake another."""
    reports, newest = [], 0
    for (at, digit), delay in zip(pressed, late, strict=True):
        newest = max(newest, at + delay)
        reports.append((newest, digit, source))
    return reports


@given(st.lists(st.tuples(gaps, keys, delays, delays)), st.booleans())
def test_however_late_either_report_is_no_key_is_doubled_or_lost(story: list, media_first: bool) -> None:
    """And however late they are, all keys of one digit are counted, which is what the model goes by."""
    pressed, at = [], 0
    for gap, digit, *_ in story:
        at += gap
        pressed.append((at, digit))
    signalled = arrivals(pressed, [row[2] for row in story], SIGNALLING)
    heard = arrivals(pressed, [row[3] for row in story], MEDIA)
    both = heard + signalled if media_first else signalled + heard
    found = new_keys(sorted(both, key=lambda report: report[0]))
    assert sorted(found) == sorted(digit for _, digit in pressed)


@given(st.lists(st.tuples(gaps, keys, delays), max_size=40), st.sampled_from(Source), st.data())
def test_one_way_is_enough_whatever_becomes_of_the_other(story: list, reliable: Source, data) -> None:
    """It reports at once; of the other one's reports some come late and some never: of the media's the first
    ones, since before the bridge there are none. The order stays, too.

    A key of which one report is missing is pressed long before and after others of its digit: nothing could
    tell its one report from the second one of its neighbour's.
    """
    pressed, at, last = [], 0, {}
    bridged = data.draw(st.integers(0, len(story)))
    for number, (gap, digit, delay) in enumerate(story):
        missing = data.draw(st.booleans()) if reliable is MEDIA else number < bridged
        at += gap
        was_at, was_missing = last.get(digit, (0, False))
        if was_missing or missing:
            at = max(at, was_at + 2 * TWIN_TICKS + 1)
        last[digit] = (at, missing)
        pressed.append((at, digit, None if missing else delay))
    other = SIGNALLING if reliable is MEDIA else MEDIA
    kept = [(at, digit) for at, digit, delay in pressed if delay is not None]
    late = [delay for _, _, delay in pressed if delay is not None]
    reports = [(at, digit, reliable) for at, digit, _ in pressed] + arrivals(kept, late, other)
    found = new_keys(sorted(reports, key=lambda report: report[0]))
    assert found == "".join(digit for _, digit, _ in pressed)


def test_keys_that_asterisk_holds_back_are_not_doubled() -> None:
    """It tells ARI of each again (keys of 100 ms with pauses of 40 ms), and the bridge of each once."""
    reports = [(0, "1", SIGNALLING), (0, "1", MEDIA)]
    for number, digit in enumerate("8529630", 1):
        at = 140 * number
        reports += [(at, digit, SIGNALLING), (at + 5, digit, SIGNALLING), (at + 5, digit, MEDIA)]
    pad = keypad()
    assert (
        "".join(digit for ms, digit, source in reports if pad.is_new(digit, source, ms / 1000)) == "18529630"
    )


# Entries.


def test_the_terminator_ends_an_entry_and_is_no_part_of_it() -> None:
    pad = keypad()
    assert typed(pad, "123") == [None] * 3
    assert pad.entry == "123"
    assert pad.press("#", 1.0) == "123"
    assert (pad.entry, pad.deadline) == ("", None)


def test_the_terminator_alone_is_an_entry() -> None:
    pad = keypad()
    assert typed(pad, "##1#") == ["#", "#", None, "1"]


def test_another_terminator_or_none() -> None:
    assert typed(keypad(terminator="*"), "1#*") == [None, None, "1#"]
    pad = keypad(terminator="")
    assert typed(pad, "1#*") == [None] * 3
    assert pad.expire(2.0) == "1#*"


def test_an_entry_ends_after_so_long_without_a_key() -> None:
    pad = keypad(timeout=2.0)
    pad.press("1", 10.0)
    pad.press("2", 11.5)
    assert pad.deadline == 13.5
    assert pad.expire(13.4) is None
    assert pad.expire(13.5) == "12"
    assert pad.deadline is None
    assert pad.expire(99.0) is None, "there is none"


def test_an_entry_ends_with_so_many_keys() -> None:
    pad = keypad(maximum=3)
    assert typed(pad, "1234") == [None, None, "123", None]
    assert pad.entry == "4"
    assert keypad(maximum=1).press("7", 0.0) == "7"


def test_new_settings_hold_from_the_next_key_on() -> None:
    pad = keypad()
    typed(pad, "12")
    pad.settings = DigitSettings(terminator="*", timeout=5.0, maximum=4)
    assert pad.press("#", 1.0) is None
    assert pad.deadline == 6.0
    assert pad.press("9", 1.0) == "12#9"


@given(
    st.lists(st.tuples(keys, st.integers(0, 4 * TICKS))),
    st.sampled_from(["#", "*", ""]),
    st.integers(1, 5),
)
def test_every_key_is_in_exactly_one_entry(story: list, terminator: str, maximum: int) -> None:
    pad, now, told = keypad(terminator=terminator, timeout=2.0, maximum=maximum), 0.0, []
    for key, gap in story:
        now += gap / TICKS
        told += [pad.expire(now), pad.press(key, now)]
        assert (pad.deadline is None) is (pad.entry == "")
    told.append(pad.expire(now + 2.0))
    entries = [entry for entry in told if entry is not None]
    assert pad.entry == ""
    assert all(0 < len(entry) <= maximum for entry in entries)
    joined = "".join(entry for entry in entries if entry != terminator)
    assert joined == "".join(key for key, _ in story if key != terminator)


@pytest.mark.parametrize(
    "wrong",
    [
        {"terminator": "##"},
        {"terminator": "E"},
        {"terminator": "#\n"},
        {"timeout": 0},
        {"timeout": 61},
        {"maximum": 0},
        {"maximum": 129},
        {"nope": 1},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DigitSettings(**wrong)

"""How keys are cut into requests, and how long each takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.call.portions import Portion, portions

KEYS = st.text("0123456789*#ABCDw", max_size=64)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("", []),
        ("5", [Portion("5", 0.26)]),
        ("w", [Portion("", 0.5)]),
        ("1ww2", [Portion("1", 0.26), Portion("", 1.0), Portion("2", 0.26)]),
        ("123456789", [Portion("12345678", 1.38), Portion("9", 0.26)]),
    ],
)
def test_portions(digits: str, expected: list[Portion]) -> None:
    assert list(portions(digits, 1.5)) == expected


@given(KEYS, st.floats(0.0, 60.0))
def test_no_key_is_lost_and_no_request_too_long(digits: str, longest: float) -> None:
    made = list(portions(digits, longest))
    assert "".join(p.keys or "w" * round(p.seconds / 0.5) for p in made) == digits
    for portion in made:
        if portion.keys:
            assert portion.seconds == pytest.approx(0.1 + len(portion.keys) * 0.16)
            assert len(portion.keys) == 1 or portion.seconds <= longest + 1e-9

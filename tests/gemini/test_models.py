from __future__ import annotations

import pytest

from ari_gemini.gemini.models import FAMILIES, UNKNOWN, ModelFamily, bare_name, family_of


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gemini-3.8-live", "3.8 live"),
        ("models/gemini-3.8-live", "3.8 live"),
        ("gemini-3.8-live-002", "3.8 live"),
        ("gemini-3.8-live-extended-thinking", "3.8 live extended thinking"),
        ("models/gemini-3.8-live-extended-thinking-001", "3.8 live extended thinking"),
        ("gemini-3.1-flash-live-preview", "3.1 flash live"),
        ("gemini-2.5-flash-native-audio-preview-12-2025", "2.5 native audio"),
        ("gemini-2.5-flash-native-audio-latest", "2.5 native audio"),
        ("gemini-live-2.5-flash-native-audio", "2.5 native audio"),
        ("gemini-4-live", "unknown"),
        ("gemini-3.5-transcribe-live", "unknown"),
        ("x-gemini-3.8-live", "unknown"),
    ],
)
def test_the_longest_prefix_names_the_family(model: str, family: str) -> None:
    assert family_of(model).name == family


def test_bare_name() -> None:
    assert bare_name("models/gemini-3.8-live") == bare_name("gemini-3.8-live") == "gemini-3.8-live"


@pytest.mark.parametrize("family", [*FAMILIES, UNKNOWN], ids=lambda family: family.name)
def test_every_row_is_possible(family: ModelFamily) -> None:
    assert family.behaviors, "a model behaves in some way"
    assert family.thinking_levels or not family.thinking_required
    assert family.greeting == "text" or family.client_content
    assert set(family.thinking_levels) <= {"MINIMAL", "LOW", "MEDIUM", "HIGH"}


def test_no_two_rows_claim_a_prefix() -> None:
    prefixes = [prefix for family in FAMILIES for prefix in family.prefixes]
    assert len(prefixes) == len(set(prefixes)) == 5


def test_what_each_family_takes() -> None:
    """The table of the reference, once more, read across."""
    rows = {
        family.name: (
            family.thinking_budget,
            len(family.thinking_levels),
            family.thinking_required,
            family.behaviors,
            family.scheduling,
            family.client_content,
            family.turn_coverage,
            family.audio_during_tools,
        )
        for family in FAMILIES
    }
    video = "audio_activity_and_all_video"
    assert rows == {
        "3.8 live": (False, 0, False, ("NON_BLOCKING", "BLOCKING"), True, True, video, True),
        "3.8 live extended thinking": (False, 3, True, ("NON_BLOCKING",), False, True, video, True),
        "3.1 flash live": (False, 4, False, ("BLOCKING",), False, False, video, False),
        "2.5 native audio": (
            *(True, 0, False, ("BLOCKING", "NON_BLOCKING"), True, True, "only_activity", False),
        ),
    }


def test_the_unknown_is_asked_for_nothing_that_some_family_refuses() -> None:
    assert not UNKNOWN.scheduling
    assert not UNKNOWN.client_content
    assert not UNKNOWN.thinking_required

from __future__ import annotations

import pytest

from ari_gemini.simulator.gemini_families import FAMILIES, family_of
from ari_gemini.simulator.gemini_schema import RefusalError


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gemini-3.8-live", "3.8"),
        ("gemini-3.8-live-extended-thinking", "3.8 extended thinking"),
        ("gemini-3.1-flash-live-preview", "3.1"),
        ("gemini-2.5-flash-native-audio-preview-12-2025", "2.5"),
        ("gemini-2.5-flash-native-audio-preview-09-2025", "2.5"),
        ("gemini-2.5-flash-native-audio-latest", "2.5"),
    ],
)
def test_models_have_their_families(model: str, family: str) -> None:
    assert family_of(f"models/{model}", "v1beta").name == family


@pytest.mark.parametrize(
    "model", ["models/gemini-2.0-flash-live-001", "models/gemini-9", "gemini-3.8-live", "models/"]
)
def test_any_other_model_is_not_found(model: str) -> None:
    with pytest.raises(RefusalError) as caught:
        family_of(model, "v1alpha")
    assert caught.value.code == 1008
    text = (
        f"{model} is not found for API version v1alpha, or is not supported for bidiGenerateContent. "
        "Call ModelService.ListModels to see the list of available models"
    )
    assert caught.value.reason == text[:123]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_rows_hold_together(family) -> None:  # type: ignore[no-untyped-def]
    assert family.default_behavior in family.behaviors
    assert bool(family.thinking_levels) == family.thinking.startswith("level")
    shortest, longest = family.frame_ms
    assert 0 < shortest <= longest <= 320

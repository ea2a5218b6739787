from __future__ import annotations

import pytest

from ari_gemini.errors import ConfigError
from ari_gemini.simulator.gemini_desk import says
from ari_gemini.simulator.phrases import phrase


def test_phrases_become_one_step() -> None:
    assert says([]) == ()
    [step] = says(["done"])
    assert (step.name, step.text, step.pcm) == ("done", "That is done.", phrase("done").pcm)
    [both] = says(["done", "goodbye"])
    assert both.name == "done+goodbye"
    assert both.text == "That is done. Thank you for calling. Goodbye!"


def test_only_the_models_own_phrases() -> None:
    with pytest.raises(ConfigError):
        says(["ask_hours"])

"""``ari-gemini demo``: what one sees, what one hears, and the exit code."""

from __future__ import annotations

import io
import re
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.hurry import hurried

from ari_gemini import cli
from ari_gemini import demo as module
from ari_gemini.audio.wav import read_wav
from ari_gemini.demo import SCRIPT, demo
from ari_gemini.errors import ConfigError
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase

ANSWERS = ("greeting", "opening_hours", "long_story", "go_on", "goodbye")


@dataclass
class Played:
    """A demo that was played."""

    well: bool
    shown: str
    directory: Path

    @property
    def live(self) -> list[str]:
        """The lines shown during the call."""
        return [line for line in self.shown.splitlines() if re.match(r" *\d+\.\d s  ", line)]

    @property
    def table(self) -> list[list[str]]:
        """The rows of the latency table, as words."""
        return [line.split() for line in self.shown.splitlines() if re.match(r" +\d+ +[\d-]+ = ", line)]


async def play(directory: Path, environ: dict[str, str] | None = None) -> Played:
    out = io.StringIO()
    with hurried():
        well = await demo(directory, environ or {}, out)
    return Played(well, out.getvalue(), directory)


@pytest.fixture(scope="module")
def kept() -> dict[str, Played]:
    """The one good demo, which all tests that only look share."""
    return {}


@pytest.fixture
async def played(kept: dict[str, Played], tmp_path_factory: pytest.TempPathFactory) -> Played:
    if "demo" not in kept:
        kept["demo"] = await play(tmp_path_factory.mktemp("demo") / "out")
    return kept["demo"]


async def test_it_goes_well(played: Played) -> None:
    assert played.well


async def test_the_call_is_shown_as_it_happens(played: Played) -> None:
    times = [float(line.split()[0]) for line in played.live]
    assert times == sorted(times)
    told = [line.split("s  ", 1)[1] for line in played.live]
    assert told[0] == "simulated Asterisk, simulated caller, simulated Gemini (gemini-3.8-live)"
    assert told[1] == "4711 dials 700: Stasis(ari-gemini,default)"
    assert told[2] == "the model is ready: the service answers and bridges the call"
    assert told[3].split() == ["model:", *phrase("greeting").text.split()]
    assert told[-2:] == ["the model uses hangup_call: done", "the call is over: model_hangup"]
    interrupted = next(at for at, line in enumerate(told) if line.startswith("the caller interrupts"))
    assert told[interrupted - 1].startswith("model:  Let me explain")
    assert told[interrupted + 1].split() == ["caller:", *phrase("interrupt").text.split()]


async def test_what_was_said_is_told_again_at_the_end(played: Played) -> None:
    at_end = played.shown.split("What was said:")[1].split("Each answer")[0]
    words = " ".join(at_end.split())
    expected = [("model", "greeting")]
    for (line, _, _), answer in zip(SCRIPT, ANSWERS[1:], strict=True):
        expected += [("caller", line), ("model", answer)]
    assert words == " ".join(f"{speaker}: {phrase(name).text}" for speaker, name in expected)
    assert max(map(len, at_end.splitlines())) <= 100


async def test_each_answer_has_its_latency(played: Played) -> None:
    assert [row[0] for row in played.table] == ["1", "2", "3", "4", "5"]
    assert [row[-1] for row in played.table].count("interrupted") == 1
    assert played.table[2][-1] == "interrupted"
    assert "the greeting" in " ".join(played.table[0])
    for row in played.table[1:]:
        waited, endpointing, thinking, playout, spoken = (int(row[at]) for at in (1, 3, 5, 7, 8))
        assert waited == pytest.approx(endpointing + thinking + playout, abs=2)
        # the simulated Gemini's own: 500 ms of silence, 800 ms of thinking; the rest is the service's
        assert 1280 <= waited <= 1400
        assert playout <= 60
        assert spoken > 1000


async def test_the_recording_has_the_caller_left_and_the_model_right(played: Played) -> None:
    (path,) = played.directory.iterdir()
    assert f"caller left, model right: {path}" in played.shown
    wav = read_wav(path)
    samples = np.asarray(stereo(path))
    assert wav.format.rate == 8000
    assert samples.shape[1] == 2
    assert 24 < len(samples) / 8000 < 32
    caller, model = samples[:, 0], samples[:, 1]
    for name in ("ask_hours", "interrupt"):
        said = np.frombuffer(phrase(name).pcm, "<i2")
        assert best_match(said, caller) > 0.999, name
    assert loudness(model) > 300
    assert loudness(caller) > 100


async def test_one_hears_the_model_fall_silent_when_the_caller_interrupts(played: Played) -> None:
    (path,) = played.directory.iterdir()
    samples = np.asarray(stereo(path))
    caller, model = samples[:, 0].astype(float), samples[:, 1]
    said = np.frombuffer(phrase("interrupt").pcm, "<i2").astype(float)
    at = int(np.argmax(np.correlate(caller, said, "valid")))
    audible = at + int(np.argmax(np.abs(said) > 500))
    assert loudness(model[at - 4000 : at]) > 300, "the model was speaking"
    last = at + int(np.flatnonzero(model[at : at + 8000])[-1])
    assert last - audible < 0.3 * 8000
    # then digital silence, until the caller has finished and the model has thought
    assert not model[last + 1 : at + len(said) + 8 * 1000].any()


def stereo(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def best_match(said: np.ndarray, heard: np.ndarray) -> float:
    one, other = said.astype(float), heard.astype(float)
    at = int(np.argmax(np.correlate(other, one, "valid")))
    return float(np.corrcoef(one, other[at : at + len(one)])[0, 1])


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


# What can go wrong.


async def test_a_refused_key_is_said_clearly(tmp_path: Path) -> None:
    async with GeminiSimulator("demo", valid_keys={"another"}) as gemini:
        environ = {"GEMINI_API_KEY": "s3cret", "ARI_GEMINI__GEMINI__BASE_URL": gemini.url}
        played = await play(tmp_path / "out", environ)
    assert not played.well
    assert "real Gemini" in played.live[0]
    assert "model_refused" in played.live[-1]
    end = played.shown.split("The call did not go through: ")[1]
    assert end.startswith("the API key is refused")
    assert "GEMINI_API_KEY is set" in end
    assert "s3cret" not in played.shown
    assert list((tmp_path / "out").iterdir()) == []


async def test_with_a_key_it_talks_to_the_gemini_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the-key\n")
    with hurried():
        async with GeminiSimulator("demo", valid_keys={"the-key"}) as gemini:
            environ = {
                "GEMINI_API_KEY_FILE": str(tmp_path / "key"),
                "ARI_GEMINI__GEMINI__BASE_URL": gemini.url,
            }
            out = io.StringIO()
            assert await demo(tmp_path / "out", environ, out)
            assert gemini.connections == 1
    assert "real Gemini (gemini-3.8-live)" in out.getvalue()


async def test_a_model_that_never_answers_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GeminiSimulator", lambda _: GeminiSimulator("silent_model"))
    played = await play(tmp_path)
    assert not played.well
    assert "the model does not answer" in played.shown


async def test_a_place_that_cannot_be_written_is_said_before_the_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        await play(tmp_path / "file" / "out")


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_the_exit_code(well: bool, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def fake(directory: Path, environ: object) -> bool:
        assert directory == tmp_path
        return well

    monkeypatch.setattr(module, "demo", fake)
    assert cli.main(["demo", "--out", str(tmp_path)]) == code


def test_an_unwritable_place_is_exit_code_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ari-gemini: --out ")
    assert error.count("\n") == 1

"""What sounds when nobody speaks, one letter a deadline; and a random conversation against a model of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.call.filler import Filler, frames_in, whole_frames

FORMAT = AudioFormat(8000)


def sound(letters: str) -> bytes:
    """Frames that are recognised."""
    return b"".join(letter.encode() * FORMAT.frame_bytes for letter in letters)


def heard(filler: Filler, script: str) -> str:
    """What comes out of silent deadlines. In the script: - silence, s speech, o something else; q quiet."""
    out = ""
    for step in script:
        if step == "s":
            filler.speech()
        elif step == "o":
            filler.other()
        elif step == "q":
            filler.quiet()
        else:
            frame = filler.silence()
            assert frame is None or (len(frame) == FORMAT.frame_bytes and len(set(frame)) == 1)
            out += "-" if frame is None else chr(frame[0])
    return out


SCRIPTS = {
    "the prompt, then the loop over and over": (0.06, "pq", "xyz", "-" * 13, "---pqxyzxyzxy"),
    "no patience": (0.0, "p", "xy", "-" * 4, "pxyx"),
    "no prompt": (0.04, "", "xy", "-" * 5, "--xyx"),
    "no loop": (0.04, "pq", "", "-" * 7, "--pq---"),
    "neither": (0.0, "", "", "-" * 3, "---"),
    "speech begins the count anew": (0.04, "p", "xy", "-s--s----", "-----px"),
    "tones do too": (0.04, "p", "xy", "-oo---", "---p"),
    "and the caller": (0.04, "p", "xy", "-q---", "---p"),
    "a prompt that was begun is not said again": (0.04, "pqr", "xy", "---s----", "--p--xy"),
    "nor after the caller has spoken": (0.04, "pqr", "xy", "----q----", "--pq--xy"),
    "nor after it was said": (0.02, "p", "xy", "---s---", "-px-xy"),
    "the loop begins at its beginning": (0.02, "", "xyz", "---s---", "-xy-xy"),
}


@pytest.mark.parametrize(("after", "prompt", "loop", "script", "out"), SCRIPTS.values(), ids=SCRIPTS)
def test_script(after: float, prompt: str, loop: str, script: str, out: str) -> None:
    filler = Filler(FORMAT, after, sound(prompt), sound(loop))
    assert heard(filler, script) == out
    assert not filler.over


def test_parts_of_frames_are_filled_up() -> None:
    filler = Filler(FORMAT, 0.0, b"pp", b"xxxx")
    assert [filler.silence() for _ in range(3)] == [
        b"pp" + bytes(318),
        b"xxxx" + bytes(316),
        b"xxxx" + bytes(316),
    ]


def test_it_lingers_so_long() -> None:
    filler = Filler(FORMAT, 0.0, b"", sound("x"))
    heard(filler, "---")
    filler.linger(0.06)
    assert (heard(filler, "--"), filler.over) == ("xx", False)
    assert (heard(filler, "-"), filler.over) == ("x", True)


def test_it_may_begin_while_it_lingers() -> None:
    filler = Filler(FORMAT, 0.06, b"", sound("x"))
    heard(filler, "--")
    filler.linger(1.0)
    assert heard(filler, "--") == "-x"


@pytest.mark.parametrize(("step", "over"), [("s", True), ("o", False), ("q", False)])
def test_only_speech_ends_its_lingering(step: str, over: bool) -> None:
    filler = Filler(FORMAT, 0.0, b"", sound("x"))
    filler.linger(1.0)
    heard(filler, "-" + step)
    assert filler.over is over


def test_time_passes_for_it_whatever_is_heard() -> None:
    filler = Filler(FORMAT, 0.0, b"", sound("x"))
    filler.linger(0.06)
    heard(filler, "oo")
    assert not filler.over
    heard(filler, "o")
    assert filler.over


def test_it_is_over_at_once_without_lingering() -> None:
    filler = Filler(FORMAT, 0.0, b"", sound("x"))
    filler.linger(0.0)
    assert filler.over


def test_lingering_is_never_prolonged() -> None:
    filler = Filler(FORMAT, 0.0, b"", sound("x"))
    filler.linger(0.04)
    filler.linger(5.0)
    heard(filler, "--")
    assert filler.over


def test_it_may_begin_at_once_and_stay() -> None:
    filler = Filler(FORMAT, 0.04, b"", sound("xyz"))
    filler.linger(0.06)
    filler.stay()
    assert (heard(filler, "-------"), filler.over) == ("xyzxyzx", False)
    filler.stay()
    assert heard(filler, "--s---q---") == "yz--x--x"
    assert not filler.over


@pytest.mark.parametrize(
    ("after", "prompt", "loop", "said"),
    [(-0.1, b"", b"", "-0.1 s"), (1.0, b"abc", b"", "3 bytes"), (1.0, b"", b"a", "1 bytes")],
)
def test_what_cannot_be_is_refused(after: float, prompt: bytes, loop: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Filler(FORMAT, after, prompt, loop)


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0, 0), (0.001, 1), (0.02, 1), (0.021, 2), (0.06, 3), (2.0, 100), (0.14, 7)]
)
def test_seconds_in_frames(seconds: float, frames: int) -> None:
    assert frames_in(seconds) == frames


def test_whole_frames() -> None:
    assert whole_frames(b"", FORMAT) == b""
    assert whole_frames(bytes(320), FORMAT) == bytes(320)
    assert whole_frames(b"ab" * 161, FORMAT) == b"ab" * 161 + bytes(318)


@settings(max_examples=200, deadline=None)
@given(
    after=st.integers(0, 4),
    prompt=st.sampled_from(["", "p", "pqr"]),
    loop=st.sampled_from(["", "x", "xyz"]),
    script=st.text("----soq", max_size=60),
)
def test_whatever_happens_it_waits_and_says_its_prompt_once(
    after: int, prompt: str, loop: str, script: str
) -> None:
    filler = Filler(FORMAT, after * 0.020, sound(prompt), sound(loop))
    expected = ""
    begun = False
    for stretch in "".join("|" if step in "soq" else step for step in script).split("|"):
        sounding = max(0, len(stretch) - after)
        first = "" if begun else prompt
        endless = (first + loop * 61) if loop else first + "-" * 61
        expected += "-" * min(after, len(stretch)) + endless[:sounding]
        begun = begun or sounding > 0
    assert heard(filler, script) == expected

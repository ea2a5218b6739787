"""The scripted voice against a clock of the test's own."""

from __future__ import annotations

import struct
import wave

import numpy as np
import pytest

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.simulator.caller_voice import LAST_PAUSE_MS, PHONE, Cue, Line, ScriptedVoice, Track

FRAME = 320
QUIET = bytes(FRAME)


def loud(frames, value=8000):
    return struct.pack("<h", value) * (FRAME // 2) * frames


class Call:
    """A call in the test's own time: every step is 20 ms."""

    def __init__(self, *script, **options):
        self.now = 1000.0
        self.voice = ScriptedVoice(script, lambda: self.now, **options)
        self.said = []
        self.steps = 0

    def step(self, heard=QUIET):
        self.said.append(self.voice.next_frame())
        if heard is not None:
            self.voice.hear(heard, self.now)
        self.steps += 1
        self.now = 1000.0 + self.steps * 0.020

    def run(self, steps, heard=QUIET):
        for _ in range(steps):
            self.step(heard)
        return self

    def until_done(self):
        while not self.voice.done:
            self.step()
        return self.voice.report()


def spoken(frames):
    """The steps at which something was said."""
    return [number for number, frame in enumerate(frames) if any(frame)]


def test_the_caller_waits_for_the_greeting_to_end():
    call = Call(Line(loud(3), "hello", delay_ms=700))
    call.run(50)  # a second of nothing: nobody has spoken yet
    call.run(10, loud(1))
    assert spoken(call.said) == []
    call.run(100)
    assert spoken(call.said) == [95, 96, 97]  # 60 steps, then 700 ms of silence


def test_a_pause_shorter_than_the_end_pointing_is_not_an_end():
    call = Call(Line(loud(1), delay_ms=700))
    call.run(10, loud(1)).run(34).run(10, loud(1)).run(34)
    assert spoken(call.said) == []
    call.run(2)
    assert spoken(call.said) == [89]


def test_nothing_is_a_cue_of_its_own():
    call = Call(Line(loud(2), cue=Cue.NOTHING, delay_ms=100), Line(loud(1), cue=Cue.NOTHING, delay_ms=200))
    call.run(30)
    assert spoken(call.said) == [5, 6, 17]


def test_barge_in_comes_so_long_after_the_other_began():
    call = Call(
        Line(loud(2), "first", Cue.NOTHING, 0), Line(loud(5), "stop", cue=Cue.REPLY_BEGIN, delay_ms=400)
    )
    call.run(10).run(40, loud(1)).run(10)
    assert spoken(call.said) == [0, 1, *range(30, 35)]
    barge_in = call.voice.report().turns[1]
    assert (barge_in.cue, barge_in.began_ms, barge_in.ended_ms) == (Cue.REPLY_BEGIN, 600, 700)
    assert barge_in.silenced_ms == pytest.approx(400)  # the other went on to 1000 ms
    assert barge_in.latency_ms is None


def test_the_answer_to_a_barge_in_may_follow_at_once():
    call = Call(Line(loud(1), cue=Cue.NOTHING, delay_ms=0), Line(loud(10), cue=Cue.REPLY_BEGIN, delay_ms=100))
    call.run(5).run(8, loud(1)).run(30).run(20, loud(1)).run(60)
    first, barge_in = call.voice.report().turns
    assert first.latency_ms == pytest.approx(80)
    assert (barge_in.began_ms, barge_in.ended_ms) == (200, 400)
    assert barge_in.silenced_ms == pytest.approx(60)
    assert barge_in.reply_began_ms == pytest.approx(860)
    assert barge_in.latency_ms == pytest.approx(460)
    assert barge_in.reply_ended_ms == pytest.approx(1260)


def test_latency_counts_audible_sound_only():
    line = Line(bytes(5 * FRAME) + loud(2) + bytes(10 * FRAME), "padded", Cue.NOTHING, 0)
    call = Call(line)
    call.run(27).run(3, struct.pack("<h", 30) * 160).run(5, loud(1)).run(60)
    report = call.voice.report()
    [turn] = report.turns
    assert (turn.began_ms, turn.ended_ms) == (100, 140)
    assert turn.latency_ms == pytest.approx(600 - 140)
    assert report.latencies_ms == [turn.latency_ms]


def test_the_call_is_over_after_the_last_answer():
    call = Call(Line(loud(1), cue=Cue.NOTHING, delay_ms=0))
    call.run(10).run(10, loud(1))
    report = call.until_done()
    assert report.completed
    assert call.steps == 10 + 10 + LAST_PAUSE_MS / 20 + 1
    assert [event.what for event in report.events] == [
        "line_began",
        "line_ended",
        "model_began",
        "model_ended",
    ]
    assert report.speech == [(pytest.approx(200), pytest.approx(400))]


def test_without_a_script_the_greeting_is_heard_out():
    call = Call()
    call.run(5).run(10, loud(1))
    assert call.until_done().completed


@pytest.mark.parametrize("silence", [QUIET, None])
def test_patience_ends(silence):
    call = Call(Line(loud(1), "hello?"), patience=2.0)
    call.run(101, silence)
    assert not call.voice.done
    call.run(2, silence)
    assert call.voice.done
    report = call.voice.report()
    assert not report.completed
    assert [(event.what, event.detail) for event in report.events] == [("gave_up", "hello?")]
    assert spoken(call.said) == []


def test_patience_lasts_as_long_as_the_other_speaks():
    call = Call(Line(loud(1)), patience=2.0)
    call.run(300, loud(1)).run(50)
    assert len(spoken(call.said)) == 1


def test_lines_can_be_added_later():
    call = Call()
    call.run(2, loud(1)).run(60)
    assert call.voice.done
    call.voice.say(Line(loud(2), cue=Cue.NOTHING, delay_ms=0))
    assert (call.voice.lines_left, call.voice.lines_said, call.voice.done) == (1, 0, False)
    call.step()
    assert (call.voice.lines_left, call.voice.lines_said) == (1, 0)
    call.step()
    assert (call.voice.lines_left, call.voice.lines_said) == (0, 1)


def test_an_answer_may_come_while_the_voice_catches_up():
    call = Call(Line(loud(3), "late", Cue.NOTHING, 0), Line(loud(1), "next", delay_ms=100))
    for _ in range(3):  # the line goes out at once, for the machine had stood still
        call.said.append(call.voice.next_frame())
    call.now += 0.001
    call.voice.hear(loud(1), call.now)
    call.steps = 1
    call.run(8)
    first, following = call.voice.report().turns
    assert (first.reply_began_ms, following.text) == (pytest.approx(1), "next")


def test_what_is_heard_now():
    call = Call(patience=1000.0)
    assert call.voice.silent_ms() == float("inf")
    assert not call.voice.hears_speech
    call.run(3, loud(1))
    assert call.voice.hears_speech
    call.run(4)
    assert call.voice.hears_speech
    assert call.voice.silent_ms() == pytest.approx(80)
    call.run(2)
    assert not call.voice.hears_speech


def test_both_sides_of_the_record_are_aligned():
    ramp = struct.pack("<480h", *range(7000, 7480))
    call = Call(Line(ramp, cue=Cue.NOTHING, delay_ms=200))
    call.run(20, None).run(5, loud(1)).run(10, None)
    report = call.voice.report()
    assert len(report.said) == len(report.heard) == 35 * FRAME
    assert report.said[10 * FRAME : 13 * FRAME] == ramp
    assert not any(report.said[: 10 * FRAME] + report.said[13 * FRAME :])
    assert report.heard == bytes(20 * FRAME) + loud(5) + bytes(10 * FRAME)
    assert (report.frames_said, report.frames_heard) == (35, 5)


def test_gaps_are_those_of_the_messages():
    call = Call()
    for number, at in enumerate([0.0, 0.020, 0.045, 0.045, 0.060]):
        call.voice.hear(loud(1, 1000 + number), 1000.0 + at)
    report = call.voice.report()
    assert report.gaps_ms == pytest.approx([20, 25, 0, 15])
    assert report.heard == b"".join(loud(1, 1000 + number) for number in range(5))


def test_odd_lengths_are_heard_too():
    call = Call()
    call.voice.hear(b"\x01\x02", 1000.0)
    call.voice.hear(loud(3), 1000.001)
    assert call.voice.report().heard[: 2 + 3 * FRAME] == b"\x01\x02" + loud(3)


def test_the_last_piece_of_a_line_is_filled_up():
    call = Call(Line(loud(1) + b"\x40\x1f" * 10, cue=Cue.NOTHING, delay_ms=0))
    call.run(3)
    assert call.said == [loud(1), (b"\x40\x1f" * 10).ljust(FRAME, b"\x00"), QUIET]


def test_a_line_without_a_sample_is_no_line():
    call = Call(Line(b"", cue=Cue.NOTHING, delay_ms=0), Line(loud(1), cue=Cue.NOTHING, delay_ms=0))
    call.run(3)
    assert len(spoken(call.said)) == 1


def test_another_rate():
    call = Call(Line(b"\x00\x40" * 640, cue=Cue.NOTHING, delay_ms=0), fmt=AudioFormat(16000))
    call.run(3, None)
    assert [len(frame) for frame in call.said] == [640, 640, 640]
    assert spoken(call.said) == [0, 1]


def test_track_bridges_small_lateness_only():
    track = Track(PHONE)
    track.add(loud(1), 0.100)
    track.add(loud(1), 0.180)  # 60 ms late: the phone's buffer has it
    assert track.pcm(0) == bytes(5 * FRAME) + loud(2)
    track.add(loud(1), 0.200)
    track.add(loud(1), 0.400)
    assert track.pcm(0) == bytes(5 * FRAME) + loud(3) + bytes(12 * FRAME) + loud(1)
    track.add(loud(2), 0.100)  # a burst follows on
    assert track.pcm(0).endswith(loud(3))
    assert len(track) == len(track.pcm(0))


def test_lines_from_files(tmp_path):
    path = tmp_path / "line.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        time = np.arange(16000) / 16000
        file.writeframes((8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes())
    line = Line.from_wav(path, "tone", Cue.NOTHING, 5)
    assert (line.text, line.cue, line.delay_ms, len(line.pcm)) == ("tone", Cue.NOTHING, 5, 16000)
    samples = np.frombuffer(line.pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() == 440
    with pytest.raises(OSError, match="missing"):
        Line.from_wav(tmp_path / "missing.wav")


def test_the_record_is_written_as_stereo(tmp_path):
    call = Call(Line(loud(2, 1000), cue=Cue.NOTHING, delay_ms=0))
    call.run(5, loud(1, 2000))
    call.voice.report().write_wav(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 800)
        samples = np.frombuffer(file.readframes(800), "<i2").reshape(-1, 2)
    assert set(samples[:320, 0]) == {1000}
    assert set(samples[320:, 0]) == {0}
    assert set(samples[:, 1]) == {2000}

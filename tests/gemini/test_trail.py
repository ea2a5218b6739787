from __future__ import annotations

from ari_gemini.gemini.trail import Trail


def test_lines() -> None:
    trail = Trail()
    trail.note(10.0, ">", "setup 123 B")
    trail.audio_sent = 7
    trail.note(11.5, "<", "Transcript")
    trail.audio_sent, trail.audio_received = 9, 2
    assert trail.lines(12.0) == [
        "-2.000s > setup 123 B (audio 0>, 0<)",
        "-0.500s < Transcript (audio 7>, 0<)",
        "+0.000s = (audio 9>, 2<)",
    ]


def test_repetitions_share_a_line() -> None:
    trail = Trail()
    for now in (1.0, 2.0, 3.0):
        trail.audio_received = int(now)
        trail.note(now, "<", "Transcript AudioDelta")
    trail.note(3.0, ">", "Transcript AudioDelta")
    assert trail.lines(3.0) == [
        "+0.000s < Transcript AudioDelta x3 (audio 0>, 3<)",
        "+0.000s > Transcript AudioDelta (audio 0>, 3<)",
        "+0.000s = (audio 0>, 3<)",
    ]


def test_only_the_newest_are_kept() -> None:
    trail = Trail(limit=32)
    for number in range(100):
        trail.note(number, ">", f"text {number} B")
    lines = trail.lines(99)
    assert len(lines) == 32 + 1
    assert lines[0].startswith("-31.000s > text 68 B")

from __future__ import annotations

from ari_gemini.simulator import gemini_record as subject
from ari_gemini.simulator.gemini_record import SessionRecord


def record(keep_sound: bool = True) -> SessionRecord:
    return SessionRecord(lambda moment: 100.0 + moment, keep_sound)


def test_events_carry_wall_time_number_and_detail() -> None:
    kept = record()
    told: list[str] = []
    kept.on_event(lambda event: told.append(event.kind))
    kept.note("interrupted", 1.0, by="caller")
    second = kept.note("interrupted", 2.0)
    assert (second.at, second.number) == (102.0, 2)
    assert [event.detail for event in kept.of("interrupted")] == [{"by": "caller"}, {}]
    assert kept.kinds() == told == ["interrupted", "interrupted"]
    assert kept.count("interrupted") == 2
    assert kept.count("closed") == 0


def test_counts_stay_exact_when_old_events_go() -> None:
    kept = record()
    for _ in range(subject.MAX_EVENTS + 5):
        kept.note("audio", 0.0)
    assert len(kept.events) == subject.MAX_EVENTS
    assert kept.count("audio") == subject.MAX_EVENTS + 5
    assert kept.events[-1].number == subject.MAX_EVENTS + 5


def test_the_callers_sound_is_kept_at_its_rate() -> None:
    kept = record()
    kept.hear(b"\1\2" * 80, 8000, 1.0)
    kept.hear(b"\3\4" * 80, 8000, 2.0)
    heard = kept.heard
    assert (heard.rate, heard.messages, heard.first_at, heard.seconds) == (8000, 2, 101.0, 0.02)
    assert heard.pcm == b"\1\2" * 80 + b"\3\4" * 80
    kept.hear(b"\5\6", 16000, 3.0)
    assert (heard.rate, heard.pcm, heard.dropped_bytes, heard.total_bytes) == (16000, b"\5\6", 320, 322)


def test_sound_is_bounded_from_its_old_end() -> None:
    kept = record()
    for number in range(subject.MAX_HEARD_BYTES // 1_000_000 + 1):
        kept.hear(bytes([number]) * 1_000_000, 16000, 0.0)
    heard = kept.heard
    assert len(heard.pcm) <= subject.MAX_HEARD_BYTES
    assert heard.pcm[-1] == subject.MAX_HEARD_BYTES // 1_000_000
    assert heard.dropped_bytes + len(heard.pcm) == heard.total_bytes


def test_sound_can_be_only_counted() -> None:
    kept = record(keep_sound=False)
    kept.hear(bytes(320), 8000, 0.0)
    said = kept.begin_saying("greeting", "Hello.", 1.0)
    kept.add_said(said, bytes(480))
    assert (kept.heard.pcm, kept.heard.total_bytes, kept.heard.dropped_bytes) == (b"", 320, 320)
    assert (said.pcm, said.sent_bytes, said.at) == (b"", 480, 101.0)


def test_what_is_said_and_received_is_kept_in_bounds() -> None:
    kept = record()
    for number in range(subject.MAX_SAID + 1):
        kept.add_said(kept.begin_saying(str(number), "Hello.", 0.0), b"\1\2")
    assert len(kept.said) == subject.MAX_SAID
    assert kept.said[-1].pcm == b"\1\2"
    for number in range(subject.MAX_MESSAGES + 1):
        kept.receive("text", 1.0, {"text": str(number)})
    assert len(kept.messages) == subject.MAX_MESSAGES
    assert kept.messages[-1].body == {"text": str(subject.MAX_MESSAGES)}
    assert kept.messages[-1].at == 101.0

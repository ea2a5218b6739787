from __future__ import annotations

from structlog.testing import capture_logs

from ari_gemini.simulator.gemini_narrator import narrate
from ari_gemini.simulator.gemini_record import SessionRecord


def test_what_matters_is_told_in_plain_lines() -> None:
    record = SessionRecord(lambda moment: moment)
    with capture_logs() as lines:
        narrate(3, record)
        record.note("setup", 0.0, model="models/gemini-3.8-live")
        record.note("audio", 0.1, bytes=960)
        record.note("interrupted", 0.2, sent_seconds=1.5)
    assert lines == [
        {"event": "< setup", "session": 3, "model": "models/gemini-3.8-live", "log_level": "info"},
        {"event": "> interrupted", "session": 3, "sent_seconds": 1.5, "log_level": "info"},
    ]

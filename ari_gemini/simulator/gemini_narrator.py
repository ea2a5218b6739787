"""Tells the log in plain words what a simulated session does."""

from __future__ import annotations

import structlog

from ari_gemini.simulator.gemini_record import Event, SessionRecord

log = structlog.get_logger(__name__)

_LINES = {
    "connected": "= a client connected",
    "setup": "< setup",
    "setup_complete": "> setup accepted",
    "resumed": "= a former session goes on",
    "refused": "! refused",
    "early_message": "! a message before the setup was accepted",
    "unlabelled_audio": "! audio without a rate in its MIME type, taken for 16 kHz",
    "activity_start": "< the caller speaks",
    "activity_end": "< the caller stopped",
    "input_transcription": "< the caller said",
    "client_text": "< text",
    "client_content": "< client content",
    "audio_stream_end": "< end of the audio stream",
    "turn_start": "> the model answers",
    "stalled": "! the model does not answer",
    "said": "> the model said",
    "interrupted": "> interrupted",
    "turn_complete": "> turn complete",
    "tool_call": "> function call",
    "call_skipped": "! a function that the setup does not declare, so it is not called",
    "tool_response": "< function result",
    "stray_tool_response": "! a result for a call that is not open",
    "tool_cancelled": "> function call cancelled",
    "go_away": "> the connection ends soon",
    "waiting_for_input": "> the model keeps waiting",
    "fault": "! fault of the scenario",
    "overrun": "! the client does not read: connection reset",
    "closed": "= closed",
}
"""What is worth a line, with one sign each for what comes in, goes out, is amiss, or none of these."""


def narrate(number: int, record: SessionRecord) -> None:
    """Log this session's events from now on, as they happen; ``number`` tells sessions apart."""
    bound = log.bind(session=number)

    def tell(event: Event) -> None:
        line = _LINES.get(event.kind)
        if line is not None:
            bound.info(line, **event.detail)

    record.on_event(tell)

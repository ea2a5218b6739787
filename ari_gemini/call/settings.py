"""What the operator may set about calls, whoever answers them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ari_gemini.call.line import ReconnectSettings


class CallSettings(BaseModel):
    """``[calls]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_calls: int = Field(default=200, ge=1, le=10_000)
    answer: Literal["when_ready", "immediately"] = "when_ready"
    setup_timeout: float = Field(default=5.0, gt=0, le=60)
    """Seconds from the call's arrival until the model must be there and Asterisk's side must stand."""
    prebuffer_ms: int = Field(default=40, ge=0, le=1000)
    """Model speech gathered before a turn's first frame: covers the gap between the first two messages."""
    reconnect: ReconnectSettings = ReconnectSettings()

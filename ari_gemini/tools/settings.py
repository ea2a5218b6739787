"""``[tools]``: limits that hold for every tool, and what the kinds of tools need."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ari_gemini.tools.http_settings import HttpToolsSettings
from ari_gemini.tools.mcp_settings import McpSettings

ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,31}$")]
"""The part before the dot in the names of a server's tools."""


class ToolLimits(BaseModel):
    """``[tools.limits]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_limit: float = Field(default=20.0, gt=0, le=600)
    """Seconds one use of a tool may take, unless the tool has a limit of its own."""
    result_limit: int = Field(default=8192, ge=256, le=1_048_576)
    """Bytes of JSON that go back to the model: its context is paid for again with every turn."""
    max_open: int = Field(default=32, ge=1, le=256)
    """Tools of one call at work at the same time: a model that calls more has lost its way."""


class ToolsSettings(HttpToolsSettings):
    """``[tools]``."""

    limits: ToolLimits = ToolLimits()
    mcp: dict[ServerName, McpSettings] = Field(default_factory=dict)

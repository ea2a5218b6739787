"""What a caller of the shop may want."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ari_gemini.errors import ToolError
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.python_tool import tool


@dataclass
class Hours:
    day: date
    opens: str
    closes: str


async def opening_hours(day: Annotated[date, Field(description="which day, as 2026-01-31")]) -> Hours:
    """When the shop is open on a day."""
    if day.isoweekday() == 7:
        raise ToolError("closed on Sundays")
    return Hours(day, "09:00", "18:00")


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    article: str
    count: Annotated[int, Field(ge=1, le=9)] = 1


class Receipt(BaseModel):
    lines: list[Line]
    size: Size
    speed: str
    note: str | None
    caller: str


@tool(time_limit=5, undoable=False)
async def order(
    context: ToolContext,
    lines: list[Line],
    size: Size = Size.SMALL,
    speed: Literal["slow", "fast"] = "slow",
    *,
    note: str | None = Field(None, description="for the packer"),
) -> Receipt:
    """Order articles.

    Ask for each article and how many.
    """
    context.log.info("ordered", lines=len(lines))
    return Receipt(lines=lines, size=size, speed=speed, note=note, caller=context.call.caller_number)


async def wait() -> None:
    """Wait until the caller gives up."""
    await asyncio.Event().wait()

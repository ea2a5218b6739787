"""Where a caller may be sent: the values of ``[agents.NAME.transfer]``. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

DialplanWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+*#.-]+$", max_length=80)]
"""A context or an extension. Asterisk ends it at a comma; an ``&`` or ``@`` would mean something else."""

DialString = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_]+/[^\s\x00-\x1f\x7f,|&]+$", max_length=256)
]
"""Technology and resource; one of them, so no ``&``."""


class Destination(BaseModel):
    """One place in the dialplan, and how a caller gets there.

    Written as ``"context,extension,priority"`` or as a table with the same keys. Blind: the caller goes on
    there at once. Attended: that place is called first, told who is calling, and then joined with the caller.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: DialplanWord
    extension: DialplanWord
    priority: int = Field(default=1, ge=1, le=10_000)
    attended: bool = False
    endpoint: DialString | None = None
    """Attended only: dial this (``PJSIP/1002``) instead of the dialplan's place."""
    ring_seconds: float = Field(default=25.0, ge=1, le=120)
    """Attended only: how long the other party's phone rings."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",")]
            if len(parts) not in (2, 3):
                raise ValueError('must read "context,extension,priority"')
            return dict(zip(("context", "extension", "priority"), parts, strict=False))
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.attended and self.endpoint is None and self.priority != 1:
            raise ValueError("an attended transfer calls the extension from its first priority on")
        if self.endpoint is not None and not self.attended:
            raise ValueError("endpoint is for attended transfers")
        return self

    @property
    def place(self) -> str:
        """As the dialplan writes it."""
        return f"{self.context},{self.extension},{self.priority}"

    @property
    def dial(self) -> str:
        """What an attended transfer calls. ``/n``: the Local channel stays, so that its id stays known."""
        return self.endpoint or f"Local/{self.extension}@{self.context}/n"

    def __str__(self) -> str:
        return f"{self.dial}, attended" if self.attended else self.place

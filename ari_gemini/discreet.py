"""HTTP on one connection, of which nothing is logged or answered but in words of ours: what a client sent may
hold a secret, and what cannot be read must not fill the log."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from pathlib import PurePath
from typing import Any

from aiohttp import web
from structlog.typing import FilteringBoundLogger

_quiet = logging.Logger(__name__, logging.CRITICAL)  # aiohttp would quote what it cannot read


class DiscreetHandler(web.RequestHandler):
    """aiohttp's own, which closes after what it cannot read. ``unreadable`` and ``failed`` say the answers.

    ``settings`` are those of ``web.RequestHandler``.
    """

    def __init__(self, http: web.Server, log: FilteringBoundLogger, **settings: Any) -> None:
        super().__init__(http, loop=asyncio.get_running_loop(), logger=_quiet, access_log=_quiet, **settings)
        self._words = log

    def unreadable(self, client: str) -> web.Response:
        """The answer to what is no HTTP."""
        raise NotImplementedError

    def failed(self) -> web.Response:
        """The answer to a request that met a defect of ours."""
        raise NotImplementedError

    async def start(self) -> None:
        """Answer what comes in, and close, which aiohttp 3.14 leaves undone when it cannot make a request."""
        client = str(self.peername[0]) if self.peername else "?"
        try:
            await super().start()
        except ValueError:  # GET http://xn--/, of which IDNA knows no host
            self.unreadable(client)
        finally:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """400: the request cannot be read; else a defect of ours, whose words may quote the request, too."""
        super().handle_error(request, status, exc, message)  # raises when half an answer is out
        if status == 400:
            return self.unreadable(request.remote or "?")
        error = exc or sys.exception()
        frames = [] if error is None else traceback.extract_tb(error.__traceback__)
        places = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        self._words.error(
            "! request failed", client=request.remote, error=type(error).__name__, at=places[-5:]
        )
        return self.failed()

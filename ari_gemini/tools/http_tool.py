"""Named HTTP tools: a function that the operator describes, and whose HTTP request the model never sees."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ari_gemini.errors import ToolError
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.http_answer import read_pointer
from ari_gemini.tools.http_client import HttpClient, Request
from ari_gemini.tools.http_settings import BODILESS, IN_QUERY, Credential, NamedToolSettings
from ari_gemini.tools.schema import declarable


class HttpTool(Tool):
    """One section of ``[tools.named]``."""

    def __init__(
        self,
        name: str,
        settings: NamedToolSettings,
        credentials: Mapping[str, Credential],
        client: HttpClient,
    ) -> None:
        """``credentials``: all of ``[tools.credentials]``."""
        self._settings = settings
        self._client = client
        self._template = settings.template
        self._rest = settings.rest
        self._pointer = None if settings.answer is None else read_pointer(settings.answer)
        self._credentials = [] if settings.credentials is None else [credentials[settings.credentials]]
        self._defaults = {
            key: schema["default"]
            for key, schema in settings.parameters["properties"].items()
            if "default" in schema
        }
        self.declaration = FunctionDeclaration(name, settings.description, declarable(settings.parameters))
        self._label = settings.url.partition("?")[0]  # a query may hold a key
        self.goes_to = f"{settings.method} {self._label}"
        self.time_limit = client.time_limit(settings.timeout)
        self.undoable = settings.method in BODILESS

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
        """Returns ``status`` with ``body`` or ``note``. Raises ToolError as :meth:`HttpClient.fetch`."""
        request = self.request(args)
        return (await self._client.fetch(request, context.log)).for_model(self._pointer)

    def request(self, args: Mapping[str, Any]) -> Request:
        """What is sent for ``args``. Raises ToolError when they fit no URL or no body."""
        given = {**self._defaults, **args}
        rest = {name: given[name] for name in self._rest if name in given}
        in_query = self._settings.method in IN_QUERY
        query = [(name, _text(name, value)) for name, value in rest.items() if in_query and value is not None]
        try:
            url = self._template.fill(
                {name: _text(name, given[name]) for name in self._template.names}, query
            )
        except ValueError as error:
            raise ToolError(str(error)) from None
        body = None if in_query or not self._rest else _json(rest)
        return Request(
            method=self._settings.method,
            url=url,
            within=[self._template.prefix],
            label=self._label,
            body=body,
            content_type="application/json" if body is not None else "",
            credentials=self._credentials,
            timeout=self._settings.timeout,
        )


def _text(name: str, value: Any) -> str:
    """A scalar as URLs have it. Models write whole numbers as 3.0 at times."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ToolError(f"{name} must be a finite number")
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value)


def _json(value: Any) -> bytes:
    """Raises ToolError for what is no JSON to everybody: infinities, half characters."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ToolError("the arguments hold a number or character that JSON cannot carry") from None

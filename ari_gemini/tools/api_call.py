"""``api_call``: an HTTP request whose address the model writes, inside a list of prefixes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.http_client import HttpClient, Request
from ari_gemini.tools.http_settings import BODILESS, ApiCallSettings, Credential
from ari_gemini.tools.url import covering, normalise


class ApiCall(Tool):
    """Sends what the model asks for, with the credentials that it never sees."""

    def __init__(
        self, settings: ApiCallSettings, credentials: Mapping[str, Credential], client: HttpClient
    ) -> None:
        """``credentials``: all of ``[tools.credentials]``. Raises ConfigError when nothing is allowed."""
        if not settings.allow:
            raise ConfigError("tools.api_call.allow: is empty, so that api_call can be given to no agent")
        self._client = client
        self._prefixes = settings.prefixes
        self._credentials = [credentials[name] for name in settings.credentials]
        self.declaration = _declaration(settings)
        self.goes_to = f"{', '.join(settings.methods)} {', '.join(settings.allow)}"
        self.time_limit = client.time_limit()
        self.undoable = BODILESS.issuperset(settings.methods)

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
        """Returns ``status`` with ``body`` or ``note``. Raises ToolError as :meth:`HttpClient.fetch`."""
        try:
            url = normalise(args["uri"])
        except ValueError as error:
            raise ToolError(str(error)) from None
        prefix = covering(self._prefixes, url)
        if prefix is None:
            allowed = ", ".join(map(str, self._prefixes))
            raise ToolError(f"this address is not allowed; allowed is what begins with: {allowed}")
        body, content_type = _body(args["method"], args.get("body", ""))
        request = Request(
            method=args["method"],
            url=url,
            within=self._prefixes,
            label=str(prefix),
            body=body,
            content_type=content_type,
            credentials=self._credentials,
        )
        return (await self._client.fetch(request, context.log)).for_model()


def _declaration(settings: ApiCallSettings) -> FunctionDeclaration:
    parameters = {
        "type": "object",
        "properties": {
            "method": {"type": "string", "enum": list(settings.methods)},
            "uri": {"type": "string"},
            "body": {"type": "string"},
        },
        "required": ["method", "uri"],
    }
    description = (
        "Performs an external HTTP API request. The uri must begin with: "
        f"{', '.join(settings.allow)}. Parameters of GET stand in the query of the uri, percent-encoded; "
        "a body is sent as JSON if it is JSON."
    )
    return FunctionDeclaration("api_call", description, parameters)


def _body(method: str, text: str) -> tuple[bytes | None, str]:
    """The bytes and their Content-Type. An empty body is none."""
    if not text:
        return None, ""
    if method in BODILESS:
        raise ToolError(f"{method} takes no body; put the parameters into the query of the uri")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ToolError("the body holds half a character (a lone surrogate)") from None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return data, "text/plain; charset=utf-8"
    return data, "application/json; charset=utf-8"

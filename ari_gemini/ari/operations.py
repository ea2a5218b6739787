"""Where the operations that this service uses are: for requests without Asterisk's API description. Pure.

``AriClient`` reads the description from Asterisk; over a call's own WebSocket it would come too late.
Methods and paths are those of Asterisk's ``rest-api/api-docs/*.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from ari_gemini.errors import AriRejected


class Route(NamedTuple):
    """An HTTP method and a path; what stands in braces there is taken from the parameters."""

    method: str
    path: str


_CHANNEL: Final = "channels/{channelId}"
_BRIDGE: Final = "bridges/{bridgeId}"
_FIELD: Final = re.compile(r"\{(\w+)\}")

ROUTES: Final[Mapping[tuple[str, str], Route]] = {
    ("asterisk", "getInfo"): Route("GET", "asterisk/info"),
    ("asterisk", "listModules"): Route("GET", "asterisk/modules"),
    ("applications", "list"): Route("GET", "applications"),
    ("applications", "get"): Route("GET", "applications/{applicationName}"),
    ("applications", "filter"): Route("PUT", "applications/{applicationName}/eventFilter"),
    ("applications", "unsubscribe"): Route("DELETE", "applications/{applicationName}/subscription"),
    ("channels", "list"): Route("GET", "channels"),
    ("channels", "originate"): Route("POST", "channels"),
    ("channels", "externalMedia"): Route("POST", "channels/externalMedia"),
    ("channels", "get"): Route("GET", _CHANNEL),
    ("channels", "hangup"): Route("DELETE", _CHANNEL),
    ("channels", "answer"): Route("POST", f"{_CHANNEL}/answer"),
    ("channels", "ring"): Route("POST", f"{_CHANNEL}/ring"),
    ("channels", "ringStop"): Route("DELETE", f"{_CHANNEL}/ring"),
    ("channels", "continueInDialplan"): Route("POST", f"{_CHANNEL}/continue"),
    ("channels", "sendDTMF"): Route("POST", f"{_CHANNEL}/dtmf"),
    ("channels", "getChannelVar"): Route("GET", f"{_CHANNEL}/variable"),
    ("channels", "setChannelVar"): Route("POST", f"{_CHANNEL}/variable"),
    ("bridges", "list"): Route("GET", "bridges"),
    ("bridges", "createWithId"): Route("POST", _BRIDGE),
    ("bridges", "get"): Route("GET", _BRIDGE),
    ("bridges", "destroy"): Route("DELETE", _BRIDGE),
    ("bridges", "addChannel"): Route("POST", f"{_BRIDGE}/addChannel"),
    ("bridges", "removeChannel"): Route("POST", f"{_BRIDGE}/removeChannel"),
}
"""By resource and nickname."""


def locate(resource: str, nickname: str, params: Mapping[str, str | int]) -> tuple[str, str]:
    """The method and the URI (without ``/ari/``) of one request; what the path does not take is the query.

    Raises AriRejected when this service does not know the operation, or the path lacks a parameter.
    """
    route = ROUTES.get((resource, nickname))
    if route is None:
        raise AriRejected(f"no operation {resource}.{nickname} is known")
    fields = _FIELD.findall(route.path)
    missing = [name for name in fields if not params.get(name)]
    if missing:
        raise AriRejected(f"{resource}.{nickname} takes {', '.join(missing)}")
    # Application names hold a channel's name, "ari-gemini:PJSIP/trunk-00000001": its slash must be escaped.
    path = _FIELD.sub(lambda match: quote(str(params[match[1]]), safe=""), route.path)
    query = urlencode({name: value for name, value in params.items() if name not in fields})
    return route.method, f"{path}?{query}" if query else path

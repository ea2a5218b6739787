"""Which ARI operations the simulated Asterisk offers, and its description of them.

One table serves both: the routes are made from it, and so is what clients download before they ask
anything. The form is Swagger 1.1 with Asterisk's extension for WebSockets (``upgrade``), as far as a client
needs it; names, addresses and parameters are ARI's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: where it is, what it is called, what it takes. A parameter with ``!`` is required."""

    resource: str
    method: str
    path: str
    nickname: str
    returns: str = "void"
    takes: tuple[str, ...] = ()
    websocket: bool = False

    def describe(self) -> Json:
        """The operation in Swagger's words."""
        names = re.findall(r"\{(\w+)\}", self.path)
        parameters: list[Json] = [
            {"name": name, "paramType": "path", "required": True, "dataType": "string"} for name in names
        ]
        parameters += [
            {
                "name": name.rstrip("!"),
                "paramType": "query",
                "required": name.endswith("!"),
                "allowMultiple": False,
                "dataType": "string",
            }
            for name in self.takes
        ]
        described: Json = {
            "httpMethod": self.method,
            "nickname": self.nickname,
            "responseClass": self.returns,
            "parameters": parameters,
        }
        if self.websocket:
            described |= {"upgrade": "websocket", "websocketProtocol": "ari"}
        return described


_CHANNEL = "/channels/{channelId}"
_BRIDGE = "/bridges/{bridgeId}"

OPERATIONS = (
    Operation("asterisk", "GET", "/asterisk/info", "getInfo", "AsteriskInfo", ("only",)),
    Operation("asterisk", "GET", "/asterisk/ping", "ping", "AsteriskPing"),
    Operation("asterisk", "GET", "/asterisk/modules", "listModules", "List[Module]"),
    Operation("applications", "GET", "/applications", "list", "List[Application]"),
    Operation("applications", "GET", "/applications/{applicationName}", "get", "Application"),
    Operation("applications", "PUT", "/applications/{applicationName}/eventFilter", "filter", "Application"),
    Operation(
        "applications",
        "DELETE",
        "/applications/{applicationName}/subscription",
        "unsubscribe",
        "Application",
        ("eventSource!",),
    ),
    Operation("channels", "GET", "/channels", "list", "List[Channel]"),
    Operation(
        "channels",
        "POST",
        "/channels/externalMedia",
        "externalMedia",
        "Channel",
        (
            "channelId",
            "app!",
            "external_host",
            "encapsulation",
            "transport",
            "connection_type",
            "format!",
            "direction",
            "data",
        ),
    ),
    Operation(
        "channels",
        "POST",
        "/channels",
        "originate",
        "Channel",
        (
            "endpoint!",
            "app",
            "appArgs",
            "callerId",
            "timeout",
            "channelId",
            "otherChannelId",
            "originator",
        ),
    ),
    Operation("channels", "GET", _CHANNEL, "get", "Channel"),
    Operation("channels", "DELETE", _CHANNEL, "hangup", takes=("reason", "reason_code")),
    Operation("channels", "POST", f"{_CHANNEL}/answer", "answer"),
    Operation("channels", "POST", f"{_CHANNEL}/ring", "ring"),
    Operation("channels", "DELETE", f"{_CHANNEL}/ring", "ringStop"),
    Operation(
        "channels",
        "POST",
        f"{_CHANNEL}/continue",
        "continueInDialplan",
        takes=("context", "extension", "priority", "label"),
    ),
    Operation(
        "channels",
        "POST",
        f"{_CHANNEL}/dtmf",
        "sendDTMF",
        takes=("dtmf", "before", "between", "duration", "after"),
    ),
    Operation("channels", "GET", f"{_CHANNEL}/variable", "getChannelVar", "Variable", ("variable!",)),
    Operation("channels", "POST", f"{_CHANNEL}/variable", "setChannelVar", takes=("variable!", "value")),
    Operation("bridges", "GET", "/bridges", "list", "List[Bridge]"),
    Operation("bridges", "POST", "/bridges", "create", "Bridge", ("type", "bridgeId", "name")),
    Operation("bridges", "POST", _BRIDGE, "createWithId", "Bridge", ("type", "name")),
    Operation("bridges", "GET", _BRIDGE, "get", "Bridge"),
    Operation("bridges", "DELETE", _BRIDGE, "destroy"),
    Operation("bridges", "POST", f"{_BRIDGE}/addChannel", "addChannel", takes=("channel!", "role")),
    Operation("bridges", "POST", f"{_BRIDGE}/removeChannel", "removeChannel", takes=("channel!",)),
    Operation(
        "events", "GET", "/events", "eventWebsocket", "Message", ("app!", "subscribeAll"), websocket=True
    ),
)

RESOURCES = tuple(dict.fromkeys(operation.resource for operation in OPERATIONS))


def describe_all(base: str) -> Json:
    """``resources.json``: which resources there are. ``base`` is the address of ``/ari``."""
    apis = [{"path": f"/api-docs/{name}.{{format}}", "description": f"{name}"} for name in RESOURCES]
    return {"apiVersion": "2.0.0", "swaggerVersion": "1.1", "basePath": base, "apis": apis}


def describe_one(base: str, resource: str) -> Json:
    """One resource's description. Raises KeyError when there is no such resource."""
    if resource not in RESOURCES:
        raise KeyError(resource)
    paths = dict.fromkeys(o.path for o in OPERATIONS if o.resource == resource)
    apis = [
        {
            "path": path,
            "description": path,
            "operations": [o.describe() for o in OPERATIONS if o.resource == resource and o.path == path],
        }
        for path in paths
    ]
    return {
        "apiVersion": "2.0.0",
        "swaggerVersion": "1.1",
        "basePath": base,
        "resourcePath": f"/api-docs/{resource}.{{format}}",
        "apis": apis,
        "models": {},
    }

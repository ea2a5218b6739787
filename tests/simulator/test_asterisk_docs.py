"""The description of the simulated Asterisk, read by the client library that reads the real one's."""

from __future__ import annotations

from typing import Any

import pytest

from ari_gemini.ari.transport import SwaggerAri  # also shields from what the library's files warn of
from ari_gemini.simulator.asterisk_docs import OPERATIONS, RESOURCES, describe_all, describe_one

BASE = "http://127.0.0.1:8088/ari"


class NoHttp:
    """The description below is complete: nothing has to be fetched."""


async def read() -> Any:
    """aioari's client of our description, as if it had been downloaded."""
    listing = describe_all(BASE)
    apis: Any = listing["apis"]
    for api, name in zip(apis, RESOURCES, strict=True):
        api["api_declaration"] = describe_one(BASE, name)
    client = SwaggerAri(f"{BASE}/", NoHttp())
    client.swagger.url = listing
    await client.init()
    return client


async def test_aioari_finds_every_operation() -> None:
    client = await read()
    for operation in OPERATIONS:
        found = client.swagger.get_resource(operation.resource).get_operation(operation.nickname)
        assert found.uri == BASE + operation.path
        assert found.json["httpMethod"] == operation.method
        assert found.json["is_websocket"] == operation.websocket
        taken = [p["name"] for p in found.json["parameters"] if p["paramType"] == "query"]
        assert taken == [name.rstrip("!") for name in operation.takes]


async def test_what_is_in_the_path_is_required() -> None:
    client = await read()
    parameters = client.swagger.channels.setChannelVar.json["parameters"]
    required = {p["name"]: p["required"] for p in parameters}
    assert required == {"channelId": True, "variable": True, "value": False}


def test_operations_are_told_apart() -> None:
    assert len({(o.resource, o.nickname) for o in OPERATIONS}) == len(OPERATIONS)
    assert len({(o.method, o.path) for o in OPERATIONS}) == len(OPERATIONS)


def test_there_is_no_other_resource() -> None:
    with pytest.raises(KeyError):
        describe_one(BASE, "mailboxes")

"""Functions whose request the model never sees, and arguments that try to change it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from http_support import Net, answer, context, logged, net, routes, says, serve, zone

from ari_gemini.errors import ToolError
from ari_gemini.tools.http_settings import HttpToolsSettings
from ari_gemini.tools.http_tool import HttpTool
from ari_gemini.tools.schema import ArgumentCheck

SECRET = "Bearer s3cr3t-of-orders"
TEXT = {"type": "string"}


def tool(there: Net, url: str, *, secrets: dict[str, Any] | None = None, **given: Any) -> HttpTool:
    made = HttpToolsSettings(
        http=there.client.settings,
        credentials=secrets or {},
        named={"order_status": {"description": "Looks up an order.", "url": url, **given}},
    )
    return HttpTool("order_status", made.named["order_status"], made.credentials, there.client)


async def use(http_tool: HttpTool, **args: Any) -> dict[str, Any]:
    """As the toolbox does it."""
    ArgumentCheck(http_tool.declaration.parameters)(args)
    return await http_tool.run(args, context())


def test_the_declaration() -> None:
    order = {"type": "string", "description": "As on the invoice.", "pattern": "^[0-9]+$"}
    parameters = {"order_id": order, "lang": {"type": "string", "default": "en"}}
    http_tool = tool(
        net(), "https://api.example.com/orders/{order_id}?key=abc", parameters=parameters, timeout=5
    )
    assert (http_tool.name, http_tool.declaration.description) == ("order_status", "Looks up an order.")
    assert http_tool.declaration.parameters == {
        "type": "object",
        "properties": parameters,
        "required": ["order_id"],
        "additionalProperties": False,
    }
    assert http_tool.goes_to == "GET https://api.example.com/orders/{order_id}"
    assert (http_tool.time_limit, http_tool.undoable) == (6, True)


def test_without_parameters() -> None:
    http_tool = tool(net(timeout=7), "https://h/status", method="POST")
    assert http_tool.declaration.parameters is None
    assert (http_tool.time_limit, http_tool.undoable) == (8, False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_arguments_in_path_and_query(method: str) -> None:
    there = net(zone())
    parameters = {
        "id": {"type": "integer"},
        "lang": {"type": "string", "default": "de"},
        "full": {"type": "boolean", "default": False},
        "max": {"type": ["number", "null"], "default": None},
    }
    async with serve(says(answer(b"" if method == "HEAD" else b'{"ok": true}'))) as server:
        url = f"http://api.example:{server.port}/orders/{{id}}?lang={{lang}}"
        http_tool = tool(there, url, method=method, parameters=parameters)
        await use(http_tool, id=7.0)
        await use(http_tool, id=-8, lang="e&n=#/..", full=True, max=2.5)
    assert [heard.target for heard in server.heard] == [
        "/orders/7?lang=de&full=false",
        "/orders/-8?lang=e%26n%3D%23%2F..&full=true&max=2.5",
    ]
    assert [(heard.method, heard.body, heard.get("Content-Type")) for heard in server.heard] == [
        (method, b"", [])
    ] * 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_arguments_in_a_body(method: str) -> None:
    there = net(zone())
    parameters = {
        "type": "object",
        "properties": {"id": TEXT, "lines": {"type": "array", "items": {"type": "object"}}, "note": TEXT},
        "required": ["id"],
    }
    async with serve(says(answer(b"{}", "200 OK", content_type="application/json"))) as server:
        url = f"http://api.example:{server.port}/orders/{{id}}"
        http_tool = tool(there, url, method=method, parameters=parameters)
        assert await use(http_tool, id="a b", lines=[{"n": 1}], note="ü\r\nX: y") == {
            "status": 200,
            "body": {},
        }
        await use(http_tool, id="x")
    first, second = server.heard
    assert first.line == f"{method} /orders/a%20b HTTP/1.1"
    assert json.loads(first.body) == {"lines": [{"n": 1}], "note": "ü\r\nX: y"}
    assert first.get("Content-Type") == ["application/json"]
    assert second.body == b"{}"


async def test_a_post_whose_url_says_it_all_has_no_body() -> None:
    there = net(zone())
    async with serve(says(answer())) as server:
        url = f"http://api.example:{server.port}/{{id}}"
        await use(tool(there, url, method="POST", parameters={"id": TEXT}), id="x")
    assert (server.heard[0].body, server.heard[0].get("Content-Type")) == (b"", [])


async def test_only_what_is_declared_is_sent() -> None:
    there = net(zone())
    parameters = {"type": "object", "properties": {"id": TEXT}, "additionalProperties": True}
    async with serve(says(answer())) as server:
        for method in ("GET", "POST"):
            url = f"http://api.example:{server.port}/x"
            await use(tool(there, url, method=method, parameters=parameters), id="1", admin="true")
    assert [(heard.target, heard.body) for heard in server.heard] == [
        ("/x?id=1", b""),
        ("/x", b'{"id": "1"}'),
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "id must not be empty"),
        ("..", "id must not be a dot"),
        (".", "id must not be a dot"),
        ("../admin", "id must hold no slash"),
        ("1/../../admin", "id must hold no slash"),
        ("1\\..\\admin", "id must hold no slash"),
        ("%2e%2e", "escaped"),
        ("..%2fadmin", "escaped"),
        ("1\r\nX-Evil: y", "control character"),
        ("1\0", "control character"),
        ("\ud800", "half a character"),
        ("x" * 3000, "longer than"),
    ],
)
async def test_arguments_that_would_change_the_path(value: str, why: str) -> None:
    there = net(zone())
    with pytest.raises(ToolError, match=why):
        await use(tool(there, "http://api.example/orders/{id}", parameters={"id": TEXT}), id=value)
    assert there.names.asked == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_numbers_that_are_none(method: str) -> None:
    http_tool = tool(net(), "http://h/x", method=method, parameters={"n": {"type": "number"}})
    for value in (math.nan, math.inf):
        with pytest.raises(ToolError, match=r"finite|JSON cannot carry"):
            await http_tool.run({"n": value}, context())


async def test_half_a_character_in_a_body_or_query() -> None:
    for method in ("GET", "POST"):
        with pytest.raises(ToolError, match=r"half a character|JSON cannot carry"):
            await use(tool(net(), "http://h/x", method=method, parameters={"n": TEXT}), n="\udc00")


def test_whatever_the_arguments_the_request_stays_in_its_place() -> None:
    parameters = {"a": TEXT, "b": TEXT, "c": TEXT}
    http_tool = tool(net(), "https://h/orders/{a}/x?b={b}", parameters=parameters)

    @settings(deadline=None, max_examples=200)
    @given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
    def check(a: str, b: str, c: str) -> None:
        check_place(http_tool, {"a": a, "b": b, "c": c})

    check()


def check_place(http_tool: HttpTool, args: dict[str, str]) -> None:
    try:
        request = http_tool.request(args)
    except ToolError:
        return
    text = str(request.url)
    assert text.startswith("https://h/orders/")
    assert request.url.path.count("/") == 3
    assert text.isprintable()
    assert " " not in text
    assert all(prefix.covers(request.url) for prefix in request.within)


@pytest.mark.parametrize(
    ("pointer", "raw", "result"),
    [
        (
            "/status/text",
            answer(b'{"status": {"text": "sent"}, "card": 4111}'),
            {"status": 200, "body": "sent"},
        ),
        (
            "/x",
            answer(b'{"card": 4111}'),
            {"status": 200, "note": "the answer lacks the part that was asked for"},
        ),
        ("/x", answer(b"card 4111"), {"status": 200, "note": "the answer is not JSON"}),
        ("/x", answer(b"", "204 No Content"), {"status": 204, "note": "the answer is not JSON"}),
        (
            "/x",
            answer(b'{"error": "table card"}', "500 Oops"),
            {"status": 500, "note": "the answer lacks the part that was asked for"},
        ),
        (
            None,
            answer(b'{"error": "no such order"}', "404 None"),
            {"status": 404, "body": {"error": "no such order"}},
        ),
        ("", answer(b"[1]"), {"status": 200, "body": [1]}),
    ],
)
async def test_which_part_of_an_answer_goes_to_the_model(
    pointer: str | None, raw: bytes, result: dict[str, Any]
) -> None:
    there = net(zone())
    async with serve(says(raw)) as server:
        url = f"http://api.example:{server.port}/x"
        assert await use(tool(there, url, answer=pointer)) == result


async def test_redirects_stay_under_the_static_part() -> None:
    there = net(zone())
    inside, outside = answer(status="302 F", location="/in/2"), answer(status="302 F", location="/out")
    async with serve(routes(**{"in": inside, "out": answer(b"secret")})) as server:
        url = f"http://api.example:{server.port}/in/{{id}}"
        with pytest.raises(ToolError, match="redirects too often"):
            await use(tool(there, url, parameters={"id": TEXT}), id="1")
    assert [heard.target for heard in server.heard] == ["/in/1", "/in/2", "/in/2", "/in/2"]
    async with serve(routes(**{"in": outside, "out": answer(b"secret")})) as server:
        url = f"http://api.example:{server.port}/in/{{id}}"
        with pytest.raises(ToolError, match="redirects to an address that is not allowed"):
            await use(tool(there, url, parameters={"id": TEXT}), id="1")
    assert [heard.target for heard in server.heard] == ["/in/1"]


async def test_its_credentials() -> None:
    there = net(zone())
    async with serve(says(answer(b"you are Bearer s3cr3t-of-orders"))) as server:
        origin = f"http://api.example:{server.port}"
        credentials = {
            "orders": {"origin": origin, "value": SECRET, "header": "X-Key"},
            "unused": {"origin": origin, "value": "not-for-this-tool"},
        }
        http_tool = tool(there, f"{origin}/x", secrets=credentials, credentials="orders")
        assert await use(http_tool) == {"status": 200, "body": "you are [secret]"}
    assert server.heard[0].get("X-Key") == [SECRET]
    assert server.heard[0].get("Authorization") == []
    assert "s3cr3t" not in str(http_tool.declaration) + http_tool.goes_to


async def test_its_own_timeout() -> None:
    async def never(heard: Any, _writer: Any) -> None:
        await heard.reader.read()

    there = net(zone(), timeout=60)
    async with serve(never) as server:
        with pytest.raises(ToolError, match=r"within 0\.1 seconds"):
            await use(tool(there, f"http://api.example:{server.port}/x", timeout=0.1))


async def test_the_log_names_the_template_alone() -> None:
    there = net(zone())
    async with serve(says(answer(b"x"))) as server:
        url = f"http://api.example:{server.port}/orders/{{id}}"
        with logged() as lines:
            await use(tool(there, f"{url}?key=abc", parameters={"id": TEXT}), id="4711")
    assert [line["url"] for line in lines] == [url, url]
    assert "4711" not in str(lines)

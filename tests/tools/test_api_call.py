"""What a model, or a caller who talks it into something, may try with ``api_call``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from http_support import Net, answer, context, logged, net, says, serve, zone

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.tools.api_call import ApiCall
from ari_gemini.tools.http_settings import ApiCallSettings, HttpToolsSettings
from ari_gemini.tools.schema import ArgumentCheck
from ari_gemini.tools.url import Prefix, normalise

SECRET = "Bearer s3cr3t-of-orders"


def tool(there: Net, *allow: str, **given: Any) -> ApiCall:
    return ApiCall(ApiCallSettings(allow=allow, **given), {}, there.client)


async def use(api_call: ApiCall, **args: Any) -> dict[str, Any]:
    """As the toolbox does it."""
    ArgumentCheck(api_call.declaration.parameters)(args)
    return await api_call.run(args, context())


def test_the_declaration() -> None:
    api_call = tool(net(), "https://api.example.com/orders/", "https://H:443")
    assert api_call.name == "api_call"
    assert api_call.declaration.parameters == {
        "type": "object",
        "properties": {
            "method": {"type": "string", "enum": ["GET", "POST"]},
            "uri": {"type": "string"},
            "body": {"type": "string"},
        },
        "required": ["method", "uri"],
    }
    assert "https://api.example.com/orders/, https://h/" in api_call.declaration.description
    assert api_call.goes_to == "GET, POST https://api.example.com/orders/, https://h/"


def test_limits() -> None:
    there = net(timeout=7)
    assert tool(there, "https://h").time_limit == 8
    assert tool(there, "https://h").undoable is False
    assert tool(there, "https://h", methods=["GET", "HEAD"]).undoable is True


def test_without_a_list_there_is_no_tool() -> None:
    with pytest.raises(ConfigError, match=r"tools\.api_call\.allow"):
        tool(net())


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"a": "ü"}', "application/json; charset=utf-8"),
        ("[1]", "application/json; charset=utf-8"),
        ("hello ü", "text/plain; charset=utf-8"),
        ("{broken", "text/plain; charset=utf-8"),
        ("[" * 50_000, "text/plain; charset=utf-8"),
        ("a\r\nHost: evil\r\n\r\nGET / HTTP/1.1", "text/plain; charset=utf-8"),
    ],
)
async def test_bodies(body: str, content_type: str) -> None:
    there = net(zone())
    async with serve(says(answer(b'{"id": 7}', "201 Created", content_type="application/json"))) as server:
        api_call = tool(there, f"http://api.example:{server.port}/orders/")
        result = await use(
            api_call, method="POST", uri=f"http://api.example:{server.port}/orders/", body=body
        )
    assert result == {"status": 201, "body": {"id": 7}}
    (heard,) = server.heard
    assert (heard.line, heard.body.decode()) == ("POST /orders/ HTTP/1.1", body)
    assert heard.get("Content-Type") == [content_type]
    assert heard.get("Host") == [f"api.example:{server.port}"]


@pytest.mark.parametrize("args", [{}, {"body": ""}])
async def test_no_body(args: dict[str, str]) -> None:
    there = net(zone())
    async with serve(says(answer(b"hi", "404 Not Found"))) as server:
        uri = f"http://api.example:{server.port}/x?q=1"
        for method in ("GET", "POST"):
            result = await use(tool(there, uri[:-4]), method=method, uri=uri, **args)
            assert result == {"status": 404, "body": "hi"}
    assert [(heard.target, heard.body, heard.get("Content-Type")) for heard in server.heard] == [
        ("/x?q=1", b"", [])
    ] * 2


async def test_refused_bodies() -> None:
    there = net(zone(), max_request=10)
    api_call = tool(there, "http://api.example", methods=["GET", "HEAD", "POST"])
    for args, why in (
        ({"method": "GET", "body": "x"}, "GET takes no body"),
        ({"method": "HEAD", "body": "x"}, "HEAD takes no body"),
        ({"method": "POST", "body": "ü" * 6}, "longer than 10 bytes"),
        ({"method": "POST", "body": "\ud800"}, "half a character"),
    ):
        with pytest.raises(ToolError, match=why):
            await use(api_call, uri="http://api.example/", **args)
    assert there.names.asked == []


@pytest.mark.parametrize("method", ["DELETE", "PUT", "get", "TRACE", "CONNECT", "GET / HTTP/1.1\r\nX: y", ""])
async def test_other_methods_do_not_get_past_the_schema(method: str) -> None:
    with pytest.raises(ToolError, match="must be one of"):
        await use(tool(net(), "https://h"), method=method, uri="https://h/")


@pytest.mark.parametrize("extra", [{"headers": {"X": "y"}}, {"credentials": "orders"}, {"timeout": 1}])
async def test_other_arguments_do_not_get_past_the_schema(extra: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="unknown"):
        await use(tool(net(), "https://h"), method="GET", uri="https://h/", **extra)


OUTSIDE = [
    *("https://evil.example/orders/", "https://api.example/orders", "https://api.example/orders-secret/"),
    *("https://api.example/", "https://api.example/orders/../admin", "https://api.example/x/orders/"),
    *("http://api.example/orders/", "https://api.example:8443/orders/", "https://api.example.evil/orders/"),
    *("https://xapi.example/orders/", "https://169.254.169.254/orders/", "https://[::1]/orders/"),
    *("https://localhost/orders/", "https://api.example/ORDERS/", "https://api.example//orders/"),
    *(
        "https://evil.example/#https://api.example/orders/",
        "https://evil.example/?https://api.example/orders/",
    ),
]
MALFORMED = [
    *("https://api.example/orders/../../%2e%2e/admin", "https://api.example/orders/..%2fadmin"),
    *("https://api.example/orders/%252e%252e/admin", "https://api.example/orders/..\\admin"),
    *("https://api.example@evil.example/orders/", "https://evil.example\\@api.example/orders/"),
    *("https://api.example/orders/ HTTP/1.1\r\nX: y", "https://api.example/orders/\n", "https://2130706433/"),
    *("https://0177.0.0.1/", "https://0x7f.1/", "https://127.1/", "https://api.example./orders/", "orders/1"),
    *(
        "//api.example/orders/",
        "file:///etc/passwd",
        "ftp://api.example/orders/",
        "",
        "https://api.example/%",
    ),
    *("https://[::ffff:127.0.0.1%25lo]/", "https://api.example/orders/" + "x" * 3000, "\ud800"),
]


@pytest.mark.parametrize("uri", OUTSIDE + MALFORMED)
async def test_addresses_that_are_not_allowed(uri: str) -> None:
    there = net({"api.example": [["93.184.216.34"]]}, networks=[])
    with pytest.raises(ToolError) as caught:
        await use(tool(there, "https://api.example/orders/"), method="GET", uri=uri)
    words = str(caught.value)
    if uri in OUTSIDE:
        assert words == (
            "this address is not allowed; allowed is what begins with: https://api.example/orders/"
        )
    else:
        assert words.startswith("the ")
    assert (there.names.asked, there.connected) == ([], [])


NOBODY = net({})


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30), st.sampled_from(["https://api.example", "https://api.example/orders/", ""]))
async def test_whatever_the_uri_nobody_else_is_asked(rest: str, start: str) -> None:
    NOBODY.names.asked.clear()
    with pytest.raises(ToolError) as caught:
        await use(tool(NOBODY, "https://api.example/orders/"), method="GET", uri=start + rest)
    if NOBODY.names.asked:
        assert NOBODY.names.asked == ["api.example"]
        assert str(caught.value) == "the server's name cannot be found"
        assert Prefix.parse("https://api.example/orders/").covers(normalise(start + rest))


async def test_credentials_are_those_named_for_it() -> None:
    there = net(zone())
    async with serve(says(answer(json.dumps({"echo": SECRET}).encode()))) as server:
        origin = f"http://api.example:{server.port}"
        all_settings = HttpToolsSettings(
            http={"networks": ["127.0.0.0/8"]},
            credentials={
                "mine": {"origin": origin, "value": SECRET},
                "not_mine": {"origin": origin, "value": "key-of-a-named-tool", "header": "X-Key"},
            },
            api_call={"allow": [origin], "credentials": ["mine"]},
        )
        api_call = ApiCall(all_settings.api_call, all_settings.credentials, there.client)
        result = await use(api_call, method="GET", uri=f"{origin}/")
    assert result == {"status": 200, "body": {"echo": "[secret]"}}
    assert server.heard[0].get("Authorization") == [SECRET]
    assert server.heard[0].get("X-Key") == []
    assert "s3cr3t" not in str(api_call.declaration) + api_call.goes_to


async def test_a_redirect_may_lead_to_any_prefix_and_no_further() -> None:
    there = net(zone())
    async with serve(says(answer(b"there")), host="127.0.0.2") as other:
        target = f"http://other.example:{other.port}/in/"
        async with serve(says(answer(status="302 Found", location=target))) as server:
            uri = f"http://api.example:{server.port}/"
            allowed = tool(there, uri, target)
            assert await use(allowed, method="GET", uri=uri) == {"status": 200, "body": "there"}
            with pytest.raises(ToolError, match="redirects to an address that is not allowed"):
                await use(tool(there, uri, f"{target}deeper"), method="GET", uri=uri)
    assert other.connections == 1


async def test_the_log_names_the_prefix_alone() -> None:
    there = net(zone())
    async with serve(says(answer(b"x"))) as server:
        prefix = f"http://api.example:{server.port}/orders/"
        with logged() as lines:
            await use(tool(there, prefix), method="POST", uri=f"{prefix}4711?pin=1234", body="hush")
    assert [line["url"] for line in lines] == [prefix, prefix]
    assert not any(word in str(lines) for word in ("4711", "1234", "hush"))

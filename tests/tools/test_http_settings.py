from __future__ import annotations

import tomllib
from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ari_gemini.tools.http_settings import (
    ApiCallSettings,
    Credential,
    HttpSettings,
    HttpToolsSettings,
    NamedToolSettings,
)

SECRET = "Bearer do-not-tell-anyone"

EXAMPLE = """
[api_call]
allow = ["https://API.example.com:443/orders/"]
credentials = ["orders"]

[http]
timeout = 5
networks = ["10.1.0.0/16", "fd00::/8"]

[credentials.orders]
origin = "https://api.example.com"
value = "Bearer do-not-tell-anyone"

[named.order_status]
description = "Looks up an order."
url = "https://api.example.com/orders/{order_id}"
credentials = "orders"
answer = "/status/text"
timeout = 5.0

[named.order_status.parameters]
order_id = { type = "string", description = "As on the invoice.", pattern = "^[0-9]+$" }
lang = { type = "string", default = "en" }
"""


def toml(text: str) -> HttpToolsSettings:
    return HttpToolsSettings(**tomllib.loads(text))


def complaint(kind: type[Any], **given: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**given)
    text = str(caught.value)
    assert SECRET not in text
    return text


def named(url: str = "https://h/{x}", **given: Any) -> dict[str, Any]:
    parameters = {"x": {"type": "string"}} if "{x}" in url else {}
    return {"description": "Does it.", "url": url, "parameters": parameters} | given


def test_the_example() -> None:
    settings = toml(EXAMPLE)
    assert settings.api_call.allow == ("https://api.example.com/orders/",)
    assert settings.api_call.methods == ("GET", "POST")
    assert settings.http.networks == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    credential = settings.credentials["orders"]
    assert (credential.origin, credential.header) == ("https://api.example.com", "Authorization")
    assert credential.value.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    tool = settings.named["order_status"]
    assert (tool.method, tool.answer, tool.timeout, tool.rest) == ("GET", "/status/text", 5.0, ("lang",))
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "order_id": {"type": "string", "description": "As on the invoice.", "pattern": "^[0-9]+$"},
            "lang": {"type": "string", "default": "en"},
        },
        "required": ["order_id"],
        "additionalProperties": False,
    }


def test_defaults_allow_nothing() -> None:
    settings = HttpToolsSettings()
    assert settings.api_call.allow == ()
    assert settings.http == HttpSettings(
        timeout=10, max_response=65_536, max_request=65_536, max_redirects=3, networks=(), ca_file=None
    )
    assert (settings.credentials, settings.named) == ({}, {})


def test_a_whole_schema_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string"}, "type": {"type": "string"}},
        "required": ["x"],
        "additionalProperties": True,
    }
    assert NamedToolSettings(**named(parameters=schema)).parameters == schema


def test_a_parameter_may_be_called_type() -> None:
    tool = NamedToolSettings(**named("https://h/{type}", parameters={"type": {"type": "string"}}))
    assert tool.parameters["properties"] == {"type": {"type": "string"}}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"timeout": 0}, "greater than 0"),
        ({"timeout": float("inf")}, "timeout"),
        ({"max_response": 1 << 30}, "max_response"),
        ({"max_redirects": 11}, "max_redirects"),
        ({"networks": ["10.1.2.3/8"]}, "has host bits set"),
        ({"networks": ["all"]}, "does not appear to be an IPv4 or IPv6 network"),
        ({"networks": [5]}, "networks"),
        ({"ca_file": "/no/such/file"}, "ca_file"),
        ({"proxy": "x"}, "proxy"),
    ],
)
def test_wrong_limits(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        HttpSettings(**given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"origin": "https://h/x"}, "nothing more"),
        ({"origin": "https://h/"}, "nothing more"),
        ({"origin": "https://h?x"}, "nothing more"),
        ({"origin": "https://u:p@h"}, "user name"),
        ({"origin": "ftp://h"}, "must begin with"),
        ({"origin": "https://127.1"}, "is a number"),
        ({"header": "X Y"}, "no name of an HTTP header"),
        ({"header": "X\r\nY"}, "no name of an HTTP header"),
        ({"header": ""}, "no name of an HTTP header"),
        ({"header": "Host"}, "belongs to the message"),
        ({"header": "content-LENGTH"}, "belongs to the message"),
        ({"value": ""}, "printable ASCII"),
        ({"value": "  "}, "printable ASCII"),
        ({"value": f"{SECRET}\r\nX: y"}, "printable ASCII"),
        ({"value": f"{SECRET}ü"}, "printable ASCII"),
        ({"value": "x" * 4097}, "printable ASCII"),
        ({"value_env": SECRET}, "value_env"),
    ],
)
def test_wrong_credentials(given: dict[str, Any], why: str) -> None:
    assert why in complaint(Credential, **({"origin": "https://h", "value": SECRET} | given))


def test_a_credential_is_trimmed() -> None:
    assert Credential(origin="https://H:443", value=SecretStr("x y\n")).value.get_secret_value() == "x y"
    assert Credential(origin="https://H:443", value=SecretStr("x")).origin == "https://h"


@pytest.mark.parametrize(
    ("origin", "networks", "good"),
    [
        ("http://h", [], False),
        ("http://h", ["10.0.0.0/8"], True),
        ("http://127.0.0.1:8080", [], True),
        ("http://[::1]", [], True),
        ("http://10.0.0.1", [], False),
        ("http://10.0.0.1", ["10.0.0.0/8"], True),
        ("http://8.8.8.8", ["10.0.0.0/8"], False),
        ("http://localhost", [], False),
    ],
)
def test_credentials_over_plain_http(origin: str, networks: list[str], good: bool) -> None:
    given = {"http": {"networks": networks}, "credentials": {"c": {"origin": origin, "value": SECRET}}}
    if good:
        HttpToolsSettings(**given)
    else:
        assert "credentials.c.origin: must be https" in complaint(HttpToolsSettings, **given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"allow": ["h/x"]}, "must begin with"),
        ({"allow": ["https://h/?q"]}, "no query"),
        ({"allow": ["https://127.1/"]}, "is a number"),
        ({"allow": [""]}, "must begin with"),
        ({"allow": ["https://*.h/"]}, "not a host name"),
        ({"methods": ["TRACE"]}, "methods"),
        ({"methods": ["get"]}, "methods"),
        ({"methods": []}, "methods"),
        ({"deny": []}, "deny"),
    ],
)
def test_wrong_api_call(given: dict[str, Any], why: str) -> None:
    assert why in complaint(ApiCallSettings, **given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "https://{x}/"}, "never in scheme, host or port"),
        ({"url": "https://h/{y}"}, "{y} is no parameter"),
        ({"url": "h/{x}"}, "must begin with"),
        ({"description": ""}, "description"),
        ({"method": "CONNECT"}, "method"),
        ({"answer": "status"}, "JSON pointer"),
        ({"headers": {}}, "headers"),
        ({"parameters": {"x": {"type": "array", "items": {"type": "string"}}}}, "{x} must be a required"),
        ({"parameters": {"x": {"type": ["string", "null"]}}}, "{x} must be a required"),
        ({"parameters": {"x": {}}}, "{x} must be a required"),
        ({"parameters": {"x": {"type": "string", "default": 5}}}, "x must be of type string"),
        (
            {"parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "{x} must be a required",
        ),
        ({"parameters": {"x": {"type": "strung"}}}, "no JSON Schema"),
        ({"parameters": {"x": "string"}}, "neither an object"),
        ({"parameters": {"x": {"$ref": "https://evil/"}}}, "$ref"),
        ({"parameters": {"x": {"type": "string"}, "y": {"type": "object"}}}, "to go into a query"),
        (
            {"parameters": {"x": {"type": "string"}, "y": {"type": "array"}}, "method": "DELETE"},
            "to go into a",
        ),
    ],
)
def test_wrong_named_tools(given: dict[str, Any], why: str) -> None:
    assert why in complaint(NamedToolSettings, **(named() | given))


def test_what_goes_into_a_body_may_be_of_any_type() -> None:
    parameters = {"x": {"type": "integer"}, "y": {"type": "array", "items": {"type": "string"}}}
    assert NamedToolSettings(**named(method="POST", parameters=parameters)).rest == ("y",)


CREDENTIALS = {
    "one": {"origin": "https://h", "value": SECRET},
    "two": {"origin": "https://h", "value": SECRET, "header": "AUTHORIZATION"},
    "other": {"origin": "https://h:8443", "value": SECRET},
}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"api_call": {"allow": ["https://h"], "credentials": ["x"]}}, "there is no credentials.x"),
        ({"api_call": {"allow": ["https://g"], "credentials": ["one"]}}, "one is for another origin"),
        ({"api_call": {"allow": ["http://h"], "credentials": ["one"]}}, "one is for another origin"),
        ({"api_call": {"allow": ["https://h"], "credentials": ["one", "two"]}}, "the same header"),
        ({"named": {"t": named(credentials="x")}}, "named.t.credentials: there is no credentials.x"),
        ({"named": {"t": named(credentials="other")}}, "named.t.credentials: other is for another origin"),
        ({"named": {"a b": named()}}, "named"),
        ({"named": {"1": named()}}, "named"),
    ],
)
def test_credentials_fit_their_use(given: dict[str, Any], why: str) -> None:
    assert why in complaint(HttpToolsSettings, credentials=CREDENTIALS, **given)


def test_credentials_that_fit() -> None:
    allow = ["https://h/a", "https://h:8443/"]
    api_call = {"allow": allow, "credentials": ["one", "other"]}
    HttpToolsSettings(credentials=CREDENTIALS, api_call=api_call, named={"t": named(credentials="two")})

"""What an operator may say about an MCP server, and what he is told when it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ari_gemini.tools.mcp_settings import McpSettings


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"command": ["python", "server.py", "a b"]}, "python server.py 'a b'"),
        ({"url": "https://mcp.example.org/mcp"}, "https://mcp.example.org/mcp"),
        ({"url": "https://mcp.example.org/mcp?key=s3cret"}, "https://mcp.example.org/mcp"),
        ({"url": "http://127.0.0.1:8000/mcp"}, "http://127.0.0.1:8000/mcp"),
        ({"url": "http://[::1]:8000/mcp"}, "http://[::1]:8000/mcp"),
        ({"url": "http://localhost/mcp"}, "http://localhost/mcp"),
    ],
)
def test_where_it_is(values: dict[str, Any], place: str) -> None:
    assert McpSettings(**values).place == place


URL = "https://mcp.example.org/mcp"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "give either command or url"),
        ({"command": ["x"], "url": URL}, "give either command or url"),
        ({"command": []}, "at least 1 item"),
        ({"command": [""]}, "at least 1 character"),
        ({"command": ["a\0b"]}, "pattern"),
        ({"command": "python server.py"}, "valid tuple"),
        ({"command": ["x"], "env": {"A=B": "1"}}, "pattern"),
        ({"command": ["x"], "header": "X-Key", "value": "v"}, "are for a server with url"),
        ({"url": URL, "env": {"A": "1"}}, "are for a server with command"),
        ({"url": URL, "header": "X-Key"}, "header needs one of"),
        ({"url": URL, "value": "v"}, "header needs one of"),
        ({"url": URL, "header": "X Key", "value": "v"}, "pattern"),
        ({"url": URL, "header": "X-Key", "value": "s3cret\r\nX-Other: 1"}, "printable ASCII"),
        ({"url": "http://mcp.example.org/mcp"}, "https:// unless the host is this machine"),
        ({"url": "http://127.0.0.1.example.org/"}, "https:// unless the host is this machine"),
        ({"url": "https://user:s3cret@mcp.example.org/"}, "no credentials"),
        ({"url": "https://mcp.example.org/#s3cret"}, "no fragment"),
        ({"url": "ftp://mcp.example.org/"}, "must begin with https://"),
        ({"url": "https://mcp.example.org:99999/"}, "bad host or port"),
        ({"url": "https:///mcp"}, "names no host"),
        ({"url": "https://mcp.example.org/a b"}, "without blanks"),
        ({"command": ["x"], "reconnect_min": 5, "reconnect_max": 1}, "reconnect_max is less"),
        ({"command": ["x"], "refresh": 0}, "greater than 0"),
        ({"command": ["x"], "comand": ["y"]}, "Extra inputs"),
    ],
)
def test_what_does_not_fit_is_named_and_not_repeated(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        McpSettings(**values)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("source", [{"value": "v"}, {"value_env": "SHOP_KEY"}, {"value_file": "key.txt"}])
def test_the_value_of_a_header_has_three_sources(source: dict[str, str]) -> None:
    assert McpSettings(url=URL, header="Authorization", **source).header == "Authorization"  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    settings = McpSettings(command=["x"], env={"KEY": "s3cret"})  # type: ignore[dict-item]
    assert "s3cret" not in repr(settings)
    settings = McpSettings(url=URL, header="X-Key", value=" s3cret\n")  # type: ignore[arg-type]
    assert "s3cret" not in repr(settings)
    assert settings.value is not None
    assert settings.value.get_secret_value() == "s3cret"


def test_a_program_gets_what_is_listed_and_no_more() -> None:
    environ = {"PATH": "/bin", "LANG": "C", "GEMINI_API_KEY": "AIza", "REGION": "south", "KEY": "ours"}
    settings = McpSettings(command=["x"], env={"KEY": "its"}, pass_env=["REGION", "NOT_THERE"])  # type: ignore[dict-item,arg-type]
    assert settings.environment(environ) == {"PATH": "/bin", "LANG": "C", "REGION": "south", "KEY": "its"}

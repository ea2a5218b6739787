"""What the operator may set about Asterisk control."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ari_gemini.ari.settings import AriSettings


def test_defaults() -> None:
    settings = AriSettings(username="gemini")
    assert (settings.url, settings.app, settings.password) == ("http://127.0.0.1:8088", "ari-gemini", None)
    assert settings.request_timeout == 3.0


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8088", "http://127.0.0.1:8088"),
        ("http://127.0.0.1:8088/", "http://127.0.0.1:8088"),
        ("https://pbx.example", "https://pbx.example"),
        ("https://pbx.example/asterisk/", "https://pbx.example/asterisk"),
        ("http://[::1]:8088", "http://[::1]:8088"),
    ],
)
def test_addresses(url: str, kept: str) -> None:
    assert AriSettings(username="gemini", url=url).url == kept


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("url", "127.0.0.1:8088", "http://"),
        ("url", "ws://127.0.0.1", "http://"),
        ("url", "http://", "no host"),
        ("url", "http://pbx example", "no host"),
        ("url", "http://127.0.0.1:port", "port"),
        ("url", "http://127.0.0.1:70000", "ort"),
        ("url", "http://gemini:geheim@127.0.0.1", "credentials"),
        ("url", "http://127.0.0.1/?api_key=a:b", "query"),
        ("url", "http://127.0.0.1:8088/ari", "/ari"),
        ("url", "http://127.0.0.1:8088/ari/", "/ari"),
        ("username", "", "username"),
        ("username", "a:b", "username"),
        ("app", "a,b", "app"),
        ("app", "", "app"),
        ("request_timeout", 0, "request_timeout"),
        ("reconnect_max", 0.1, "reconnect_max"),
        ("mode", "inbound", "mode"),
        ("listen", "8787", "host:port"),
        ("listen", ":8787", "host:port"),
        ("listen", "127.0.0.1", "host:port"),
        ("listen", "127.0.0.1:port", "ort"),
        ("listen", "127.0.0.1:70000", "ort"),
        ("listen", "127.0.0.1:8787/ari", "host:port"),
        ("listen", "a b:8787", "host:port"),
        ("listen", "gemini@127.0.0.1:8787", "host:port"),
        ("max_connections", 0, "max_connections"),
        ("link_timeout", 0, "link_timeout"),
        ("passwort", "x", "passwort"),
    ],
)
def test_mistakes_are_named(field: str, value: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AriSettings.model_validate({"username": "gemini", field: value})


def test_the_password_is_never_printed() -> None:
    settings = AriSettings.model_validate({"username": "gemini", "password": "geheim"})
    assert settings.password is not None
    assert settings.password.get_secret_value() == "geheim"
    assert "geheim" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8787", ("127.0.0.1", 8787)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:8787", ("::1", 8787)),
        ("worker:8787", ("worker", 8787)),
    ],
)
def test_where_to_listen(listen: str, address: tuple[str, int]) -> None:
    settings = AriSettings(username="gemini", mode="outbound", listen=listen)
    assert (settings.listen, settings.listen_address) == (listen, address)

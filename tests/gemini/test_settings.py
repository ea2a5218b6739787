from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from ari_gemini.gemini.settings import GeminiSettings

SECRET = "AIzaSyD-do-not-tell"


def complaint(**given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        GeminiSettings(**given)
    text = str(caught.value)
    assert caught.value.error_count() == 1
    return text


def test_defaults() -> None:
    settings = GeminiSettings()
    assert settings.url == (
        "wss://generativelanguage.googleapis.com/ws/"
        "google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    )
    assert settings.family.name == "3.8 live"
    assert settings.host == "generativelanguage.googleapis.com"
    assert settings.api_key is None
    assert settings.proxy is None


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("ws://127.0.0.1:9", "ws://127.0.0.1:9/ws/"),
        ("wss://example.test/", "wss://example.test/ws/"),
        ("wss://example.test:8443/gateway/one/", "wss://example.test:8443/gateway/one/ws/"),
        ("ws://[::1]:9", "ws://[::1]:9/ws/"),
    ],
)
def test_base_url(base_url: str, url: str) -> None:
    method = "google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent"
    assert GeminiSettings(base_url=base_url, api_version="v1alpha").url == url + method


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("https://example.test", "must begin with ws:// or wss://"),
        ("example.test", "must begin with ws:// or wss://"),
        ("", "must begin with ws:// or wss://"),
        ("wss://", "names no host"),
        ("wss://:443", "names no host"),
        ("wss://example.test:port", "not a valid URL"),
        ("wss://example.test:99999", "not a valid URL"),
        ("wss://[::1", "not a valid URL"),
        ("wss://example.test/?key=1", "must have no query"),
        ("wss://example.test/#x", "no fragment"),
        (f"wss://user:{SECRET}@example.test", "must hold no credentials"),
        ("wss://exa mple.test", "without blanks"),
        ("wss://exämple.test", "plain ASCII"),
    ],
)
def test_bad_base_url(base_url: str, why: str) -> None:
    text = complaint(base_url=base_url)
    assert why in text
    assert "base_url" in text
    assert SECRET not in text


@pytest.mark.parametrize("given", [SECRET, f" {SECRET}\n", SecretStr(SECRET)])
def test_the_key_is_kept_and_never_shown(given: str | SecretStr) -> None:
    settings = GeminiSettings(api_key=given)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == SECRET
    for shown in (repr(settings), str(settings), settings.model_dump_json(), settings.url):
        assert SECRET not in shown
    assert settings.redact(f"API key {SECRET} is not valid") == "API key [secret] is not valid"


@pytest.mark.parametrize("given", [None, "", "  \n"])
def test_no_key(given: str | None) -> None:
    settings = GeminiSettings(api_key=given)
    assert settings.api_key is None
    assert settings.redact("nothing to hide") == "nothing to hide"


@pytest.mark.parametrize("key", [f"{SECRET}\r\nX-Evil: 1", f"{SECRET} {SECRET}", f"{SECRET}é"])
def test_a_bad_key_is_refused_without_showing_it(key: str) -> None:
    text = complaint(api_key=key)
    assert "printable ASCII" in text
    assert SECRET not in text


def test_proxy() -> None:
    settings = GeminiSettings(proxy=f"http://user:{SECRET}@proxy.test:3128")
    assert SECRET not in repr(settings)
    assert settings.redact(f"http://user:{SECRET}@proxy.test:3128 failed") == "[secret] failed"


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        (f"socks5://user:{SECRET}@proxy.test", "must begin with http:// or https://"),
        (f"http://user:{SECRET}@proxy.test/path", "must have no path"),
        (f"http://{SECRET}@proxy.test", "user name and a password"),
    ],
)
def test_bad_proxy(proxy: str, why: str) -> None:
    text = complaint(proxy=proxy)
    assert why in text
    assert SECRET not in text


def test_greeting_that_the_model_would_refuse() -> None:
    text = complaint(model="models/gemini-3.1-flash-live-preview", greeting_via="client_content")
    assert (
        'gemini-3.1-flash-live-preview takes no clientContent in mid-session: set greeting_via = "text"'
        in text
    )
    assert GeminiSettings(greeting_via="client_content").greeting_via == "client_content"


def test_times() -> None:
    assert "lost_after must not be shorter than ping_interval" in complaint(ping_interval=5, lost_after=4.9)
    assert GeminiSettings(ping_interval=None, lost_after=1).ping_interval is None
    for name in ("connect_timeout", "setup_timeout", "ping_interval", "lost_after"):
        for bad in (0, -1, float("nan"), float("inf"), 601):
            assert name in complaint(**{name: bad})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("api_version", "v1beta/../x"),
        ("api_version", "beta"),
        ("model", ""),
        ("model", "models/x?key=1"),
        ("model", "models/x y"),
        ("input_rate", 24000),
        ("greeting_via", "shout"),
        ("ca_file", "/nonexistent/ca.pem"),
        ("unknown", 1),
    ],
)
def test_wrong_values_are_named(name: str, bad: object) -> None:
    assert name in complaint(**{name: bad})


def test_ca_file(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("")
    assert GeminiSettings(ca_file=path).ca_file == path


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        GeminiSettings().model = "other"

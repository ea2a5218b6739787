from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings

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


# --- tokens and the broker ---

BROKERED = {"auth": "ephemeral", "broker_url": "https://broker.test", "broker_secret": "0123456789abcdef"}


def test_tokens_by_default() -> None:
    settings = GeminiSettings()
    assert (settings.auth, settings.token_uses, settings.token_lock) == ("api_key", 1, True)
    assert (settings.token_lifetime, settings.token_start_within) == (7200, 60)
    assert settings.needs_key


@pytest.mark.parametrize(
    ("given", "needs_key"),
    [
        ({"auth": "ephemeral"}, True),
        (BROKERED, False),
        ({"auth": "api_key", "broker_secret": "x" * 16}, True),
    ],
)
def test_who_needs_a_key(given: dict[str, object], needs_key: bool) -> None:
    assert GeminiSettings(**given).needs_key is needs_key


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (
            "wss://generativelanguage.googleapis.com",
            "https://generativelanguage.googleapis.com/v1beta/auth_tokens",
        ),
        ("ws://127.0.0.1:9/gate/", "http://127.0.0.1:9/gate/v1beta/auth_tokens"),
    ],
)
def test_where_tokens_are_minted(base_url: str, url: str) -> None:
    assert GeminiSettings(base_url=base_url).minting_url == url


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"broker_url": "https://broker.test"}, 'broker_url has no use with auth = "api_key"'),
        (
            {"auth": "ephemeral", "broker_url": "https://broker.test"},
            "broker_url needs broker_secret; set ARI_GEMINI_BROKER_SECRET",
        ),
        ({"auth": "ephemeral", "api_version": "v1"}, "is not to be had with api_version v1"),
        (
            {"token_lifetime": 60, "token_start_within": 61},
            "token_start_within must not be longer than token_lifetime",
        ),
        ({"token_lifetime": 72_000}, "token_lifetime"),
        ({"token_start_within": 0}, "token_start_within"),
        ({"token_uses": -1}, "token_uses"),
        ({"auth": "oauth"}, "auth"),
        (BROKERED | {"broker_url": "wss://broker.test"}, "must begin with http:// or https://"),
        (BROKERED | {"broker_url": f"https://user:{SECRET}@broker.test"}, "must hold no credentials"),
        (BROKERED | {"broker_url": "https://broker.test/?x=1"}, "must have no query"),
        (BROKERED | {"broker_secret": "do-not-tell"}, "must have at least 16 characters"),
        (BROKERED | {"broker_secret": f"{SECRET}\r\nX-Evil: 1"}, "printable ASCII"),
    ],
)
def test_what_makes_no_sense(given: dict[str, object], why: str) -> None:
    text = complaint(**given)
    assert why in text
    assert "do-not-tell" not in text


def test_the_brokers_secret_and_tokens_are_never_shown() -> None:
    settings = GeminiSettings(**BROKERED | {"broker_secret": f" {SECRET}\n"})
    assert SECRET not in repr(settings)
    assert settings.redact(f"{SECRET} auth_tokens/abc.def-9 ok") == "[secret] [token] ok"
    assert GeminiSettings(broker_secret="", broker_url="").broker_url is None


def broker_complaint(**given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        BrokerSettings(**given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8091", ("127.0.0.1", 8091)),
        ("[::1]:0", ("::1", 0)),
        ("broker.test:65535", ("broker.test", 65535)),
    ],
)
def test_where_a_broker_listens(listen: str, address: tuple[str, int]) -> None:
    assert BrokerSettings(listen=listen).address == address


@pytest.mark.parametrize("listen", ["", "8091", "::1:8091", "host:port", "h:65536", "h o:1", "http://h:1"])
def test_where_it_cannot(listen: str) -> None:
    assert "listen" in broker_complaint(listen=listen)


def test_models_of_a_broker() -> None:
    assert BrokerSettings(models=("models/a", "b")).models == ("a", "b")


def test_a_brokers_limits_and_tls(tmp_path: Path) -> None:
    for name in ("client_rate", "client_burst", "total_rate", "total_burst"):
        assert name in broker_complaint(**{name: 0})
    cert = tmp_path / "cert.pem"
    cert.write_text("")
    assert "belong together" in broker_complaint(tls_cert=cert)

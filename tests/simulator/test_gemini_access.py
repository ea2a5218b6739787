from __future__ import annotations

import math
from typing import Any

import pytest

from ari_gemini.simulator import gemini_access as subject
from ari_gemini.simulator.gemini_schema import RefusalError

PLAIN = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
CONSTRAINED = PLAIN + "Constrained"


@pytest.mark.parametrize(
    ("target", "version", "constrained"),
    [
        (PLAIN, "v1beta", False),
        ("/" + PLAIN, "v1beta", False),
        (PLAIN.replace("v1beta", "v1alpha"), "v1alpha", False),
        (CONSTRAINED, "v1beta", True),
        (PLAIN + "?key=a", "v1beta", False),
    ],
)
def test_both_versions_both_methods_and_a_double_slash(target: str, version: str, constrained: bool) -> None:
    endpoint = subject.endpoint_of(target)
    assert endpoint is not None
    assert (endpoint.version, endpoint.constrained) == (version, constrained)


@pytest.mark.parametrize(
    "target",
    ["/", PLAIN.replace("v1beta", "v1"), PLAIN + "s", "//" + PLAIN, "/v1beta/auth_tokens", "/x" + PLAIN],
)
def test_nothing_else_is_there(target: str) -> None:
    assert subject.endpoint_of(target) is None


class NoTokens:
    def admit(self, token: str) -> subject.Admission:
        raise RefusalError(1007, subject.BAD_TOKEN)


def admit(target: str, headers: dict[str, str] | None = None, **rules: Any) -> subject.Admit:
    endpoint = subject.endpoint_of(target)
    assert endpoint is not None
    access = subject.Access(rules.get("valid_keys"), rules.get("tokens", NoTokens()))
    admission = access.admit(endpoint, headers or {})
    assert admission.seconds_left() == math.inf
    return admission.setup


def refusal(target: str, headers: dict[str, str] | None = None, **rules: Any) -> tuple[int, str]:
    with pytest.raises(RefusalError) as caught:
        admit(target, headers, **rules)
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize(
    ("target", "headers"),
    [(PLAIN, {"x-goog-api-key": "k"}), (PLAIN + "?key=k", {}), (PLAIN + "?key=%6b", {})],
)
def test_a_key_comes_by_header_or_query(target: str, headers: dict[str, str]) -> None:
    setup = {"model": "m"}
    assert admit(target, headers)(setup) is setup
    assert admit(target, headers, valid_keys={"k"})(setup) is setup
    assert refusal(target, headers, valid_keys={"other"}) == (
        1007,
        "API key not valid. Please pass a valid API key.",
    )


@pytest.mark.parametrize("target", [PLAIN, PLAIN + "?key="])
def test_no_key_is_an_unregistered_caller(target: str) -> None:
    code, reason = refusal(target)
    assert code == 1008
    assert reason == (
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API c"
    )


def test_a_token_is_no_key() -> None:
    assert refusal(PLAIN, {"x-goog-api-key": "auth_tokens/abc"})[0] == 1007


TOKEN = "auth_tokens/abc"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (CONSTRAINED, {"authorization": f"Token {TOKEN}"}),
        (CONSTRAINED + f"?access_token={TOKEN}", {}),
        (CONSTRAINED, {"authorization": f"Token {TOKEN}", "x-goog-api-key": TOKEN}),
    ],
)
def test_a_token_comes_by_header_or_query(target: str, headers: dict[str, str]) -> None:
    class Gate:
        def admit(self, token: str) -> subject.Admission:
            return subject.Admission(lambda setup: {**setup, "token": token})

    assert admit(target, headers, tokens=Gate())({}) == {"token": TOKEN}
    assert refusal(target, headers) == (1007, "Missing or malformed auth token.")


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (CONSTRAINED, {}),
        (CONSTRAINED, {"x-goog-api-key": "k"}),
        (CONSTRAINED, {"authorization": f"Bearer {TOKEN}"}),
        (CONSTRAINED + f"?access_token={TOKEN}", {"authorization": f"Token {TOKEN}"}),
        (CONSTRAINED + f"?access_token={TOKEN}&access_token={TOKEN}", {}),
        (CONSTRAINED + "?access_token=abc", {}),
    ],
)
def test_one_token_in_one_place(target: str, headers: dict[str, str]) -> None:
    class Gate:
        def admit(self, token: str) -> subject.Admission:
            return subject.Admission()

    assert refusal(target, headers, tokens=Gate()) == (1007, "Missing or malformed auth token.")


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("/v1beta/auth_tokens", "v1beta"),
        ("/v1alpha/auth_tokens", "v1alpha"),
        ("//v1beta/auth_tokens", "v1beta"),
        ("/v1beta/auth_tokens?key=k", "v1beta"),
        ("/v1/auth_tokens", None),
        ("/v1beta/auth_tokens/x", None),
        (PLAIN, None),
    ],
)
def test_where_tokens_are_minted(target: str, version: str | None) -> None:
    assert subject.minting_version(target) == version

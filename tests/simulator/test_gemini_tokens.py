"""Ephemeral tokens: the book's rules on a clock of paper, then the official client as a witness."""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.simulator import gemini_tokens as subject
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.gemini_tokens import TokenBook, lock

LIVE = "models/gemini-3.8-live"
SETUP: dict[str, Any] = {"model": LIVE}
RESUMING: dict[str, Any] = {**SETUP, "sessionResumption": {"handle": "h"}}
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def unknown(name: str, path: str) -> str:
    return f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Cannot find field."


class Paper:
    """A book and its clock."""

    def __init__(self) -> None:
        self.now = NOON
        self.book = TokenBook(lambda: self.now)

    def mint(self, version: str = "v1beta", **body: Any) -> str:
        return str(self.book.mint(json.dumps(body).encode(), version)["name"])

    def refused(self, **body: Any) -> str:
        with pytest.raises(RefusalError) as caught:
            self.mint(**body)
        assert caught.value.code == 1007
        assert self.book.minted == []
        return caught.value.text

    def start(self, name: str, setup: dict[str, Any] = SETUP) -> dict[str, Any]:
        return self.book.admit(name).setup(setup)

    def not_started(self, name: str, setup: dict[str, Any] = SETUP) -> tuple[int, str]:
        with pytest.raises(RefusalError) as caught:
            self.start(name, setup)
        return caught.value.code, caught.value.reason

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def paper() -> Paper:
    return Paper()


# --- minting ---


def test_the_answer_and_the_defaults(paper: Paper) -> None:
    answer = paper.book.mint(b"", "v1beta")
    assert re.fullmatch(r"auth_tokens/[0-9a-f]{64}", answer.pop("name"))
    assert answer == {
        "expireTime": "2026-11-22T12:30:00Z",
        "newSessionExpireTime": "2026-11-22T12:01:00Z",
        "uses": 1,
    }


@pytest.mark.parametrize(
    "body",
    [
        {"uses": 3, "expireTime": "2026-11-22T13:00:00Z", "newSessionExpireTime": "2026-11-22T12:05:00Z"},
        {
            "uses": "3",
            "expire_time": "2026-11-22T14:00:00+01:00",
            "new_session_expire_time": "2026-11-22T12:05Z",
        },
    ],
)
def test_both_spellings(paper: Paper, body: dict[str, Any]) -> None:
    paper.mint(**body)
    [token] = paper.book.minted
    assert (token.uses, token.expires, token.start_before) == (
        3,
        NOON + timedelta(hours=1),
        NOON + timedelta(minutes=5),
    )
    assert token.request == body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"x": 1}, unknown("x", "auth_token")),
        (
            {"liveConnectConstraints": {}},
            unknown("liveConnectConstraints", "auth_token"),
        ),
        (
            {"bidiGenerateContentSetup": {"config": {}}},
            unknown("config", "auth_token.bidi_generate_content_setup"),
        ),
        (
            {"bidiGenerateContentSetup": {"proactivity": {}}},
            unknown("proactivity", "auth_token.bidi_generate_content_setup"),
        ),
        (
            {"expireTime": "2026-11-23T08:00:00Z"},
            "expire_time is too far in the future. Maximum lifetime is 20h",
        ),
        (
            {"newSessionExpireTime": "2026-11-23T08:00:00Z"},
            "new_session_expire_time is too far in the future. Maximum lifetime is 20h",
        ),
    ],
)
def test_what_is_refused_in_the_services_words(paper: Paper, body: dict[str, Any], text: str) -> None:
    assert paper.refused(**body) == text


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("uses", -1, "uses"),
        ("uses", True, "uses"),
        ("uses", "many", "uses"),
        ("expireTime", "soon", "expire_time"),
        ("expireTime", 12, "expire_time"),
        ("expireTime", "2026-11-22T12:30:00", "expire_time"),
        ("fieldMask", "model,nonsense", "field_mask"),
        ("fieldMask", "generation_config", "field_mask"),
        ("fieldMask", "tools.functionDeclarations", "field_mask"),
        ("fieldMask", ["model"], "field_mask"),
    ],
)
def test_values_that_are_none(paper: Paper, name: str, value: Any, field: str) -> None:
    assert paper.refused(**{name: value}).startswith(f"Invalid value at 'auth_token.{field}' (")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
def test_bodies_that_are_none(paper: Paper, body: bytes) -> None:
    with pytest.raises(RefusalError):
        paper.book.mint(body, "v1beta")


def test_just_less_than_20_hours_and_v1alpha(paper: Paper) -> None:
    paper.mint(expireTime="2026-11-23T07:59:59Z")
    paper.mint("v1alpha", bidiGenerateContentSetup={"model": LIVE, "proactivity": {}})
    assert len(paper.book.minted) == 2


def test_the_oldest_token_is_forgotten(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_TOKENS", 2)
    names = [paper.mint() for _ in range(3)]
    with pytest.raises(RefusalError) as caught:
        paper.book.admit(names[0])
    assert (caught.value.code, caught.value.reason) == (1007, "Missing or malformed auth token.")
    assert [token.name for token in paper.book.minted] == names[1:]


# --- uses and times ---


def test_uses_are_counted_and_resuming_costs_none(paper: Paper) -> None:
    name = paper.mint(uses=2)
    assert paper.start(name) == SETUP
    assert [paper.start(name, RESUMING) for _ in range(3)] == [RESUMING] * 3
    paper.start(name)
    assert paper.not_started(name) == (1011, "Token has been used too many times")
    assert paper.start(name, RESUMING) == RESUMING
    [token] = paper.book.minted
    assert (token.used, token.resumed) == (2, 4)


def test_one_use_is_the_default_and_zero_is_any_number(paper: Paper) -> None:
    once, ever = paper.mint(), paper.mint(uses=0)
    paper.start(once)
    assert paper.not_started(once)[0] == 1011
    for _ in range(50):
        paper.start(ever)


def test_a_session_must_be_started_soon_and_may_be_resumed_later(paper: Paper) -> None:
    name = paper.mint(uses=0)
    paper.wait(seconds=59.9)
    paper.start(name)
    paper.wait(seconds=0.1)
    assert paper.not_started(name) == (1011, "Token has expired")
    paper.wait(minutes=28.9)
    assert paper.start(name, RESUMING) == RESUMING
    paper.wait(minutes=0.1)
    assert paper.not_started(name, RESUMING) == (1011, "Token has expired")


def test_how_long_messages_are_taken(paper: Paper) -> None:
    admission = paper.book.admit(paper.mint(expireTime="2026-11-22T12:10:00Z"))
    paper.wait(minutes=4)
    assert admission.seconds_left() == 360.0


@pytest.mark.parametrize("setup", [{}, {"model": "gemini-3.8-live"}, {"model": "tunedModels/x"}])
def test_a_model_without_its_prefix_is_a_project_scoped_feature(paper: Paper, setup: dict[str, Any]) -> None:
    assert paper.not_started(paper.mint(uses=0), setup) == (
        1007,
        "token-based requests cannot use project-scoped features such as tuned models",
    )


# --- locks ---

TOKENS = {"model": LIVE, "generationConfig": {"temperature": 1.0}, "tools": [{"googleSearch": {}}]}
CLIENTS = {
    "model": "models/other",
    "generationConfig": {"temperature": 0.0, "topK": 4},
    "systemInstruction": {"parts": [{"text": "Swear."}]},
    "sessionResumption": {"handle": "h"},
}


@pytest.mark.parametrize(
    ("setup", "mask", "changed"),
    [
        (None, None, {}),
        (TOKENS, ("model",), {"model": LIVE}),
        (
            TOKENS,
            ("model", "generationConfig.temperature"),
            {"model": LIVE, "generationConfig": {"temperature": 1.0, "topK": 4}},
        ),
        (TOKENS, ("generationConfig",), {"generationConfig": {"temperature": 1.0}}),
        (
            TOKENS,
            ("tools", "systemInstruction"),
            {"tools": [{"googleSearch": {}}], "systemInstruction": None},
        ),
        (TOKENS, ("generationConfig.topK",), {"generationConfig": {"temperature": 0.0}}),
        (TOKENS, ("realtimeInputConfig.turnCoverage",), {}),
        (None, ("generationConfig",), {"generationConfig": None}),
    ],
)
def test_which_setup_counts(setup: Any, mask: Any, changed: dict[str, Any]) -> None:
    expected = {name: value for name, value in {**CLIENTS, **changed}.items() if value is not None}
    before = json.dumps([CLIENTS, setup])
    assert lock(CLIENTS, setup, mask) == expected
    assert json.dumps([CLIENTS, setup]) == before, "nothing is changed in place"


def test_without_a_mask_the_tokens_setup_is_all_there_is(paper: Paper) -> None:
    name = paper.mint(bidiGenerateContentSetup=TOKENS)
    assert paper.start(name, CLIENTS) == TOKENS
    assert paper.not_started(name, CLIENTS)[1] == "Token has been used too many times", "it cannot resume"


@given(st.sets(st.sampled_from(sorted(CLIENTS))), st.sets(st.sampled_from(sorted({*CLIENTS, *TOKENS}))))
def test_masked_fields_are_the_tokens_and_no_others(sent: set[str], mask: set[str]) -> None:
    client = {name: CLIENTS[name] for name in sent}
    result = lock(client, TOKENS, tuple(mask))
    for name in {*CLIENTS, *TOKENS}:
        assert result.get(name) == (TOKENS if name in mask else client).get(name)


# --- the official client ---


@pytest.fixture(scope="module")
def genai() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google import genai as module
    return module


@pytest.fixture
def client_of(genai: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    for name in (
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "HTTPS_PROXY",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)

    def make(sim: GeminiSimulator, key: str) -> Any:
        options = {"base_url": f"https://127.0.0.1:{sim.port}", "api_version": "v1beta"}
        return genai.Client(api_key=key, http_options=options)

    return make


async def minted_by(client: Any, **config: Any) -> str:
    """``auth_tokens.create`` of the official client, in a thread, as it waits."""

    def create() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it is experimental
            return str(client.auth_tokens.create(config=config).name)

    return await asyncio.to_thread(create)


async def talk(client: Any, **config: Any) -> str | None:
    """Open a session and greet; the handle to resume it."""
    settings = {"response_modalities": ["AUDIO"], "session_resumption": {}, **config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with client.aio.live.connect(model="gemini-3.8-live", config=settings) as session:
            await session.send_realtime_input(text="Greet the caller.")
            async for message in session.receive():
                if message.session_resumption_update:
                    return str(message.session_resumption_update.new_handle)
    return None


async def test_the_official_client_mints_a_token_and_talks_with_it(
    genai: Any, client_of: Any, certificate: Any
) -> None:
    """Minted with a lock of what is set, used once, refused a second time, resumed."""
    from google.genai import errors

    constraints = {"model": LIVE, "config": {"temperature": 0.25, "system_instruction": "Be kind."}}
    async with GeminiSimulator(speed=20, ssl=certificate.server(), valid_keys={"a-key"}) as sim:
        owner = client_of(sim, "a-key")
        try:
            name = await minted_by(
                owner, live_connect_constraints=constraints, lock_additional_fields=[], uses=1
            )
        finally:
            owner.close()
        [token] = sim.tokens.minted
        assert token.name == name
        assert set(token.mask or ()) == {
            "model",
            "generationConfig.temperature",
            "systemInstruction.parts",
            "systemInstruction.role",
        }
        holder = client_of(sim, name)
        try:
            handle = await talk(holder, temperature=1.5)
            session = await sim.wait_session()
            assert session.path.partition("?")[0].endswith("BidiGenerateContentConstrained")
            assert session.headers["authorization"] == f"Token {name}"
            await session.wait_closed()
            with pytest.raises(errors.APIError) as caught:
                await talk(holder)
            assert "1011" in str(caught.value)
            assert "Token has been used too many times" in str(caught.value)
            sim.scenario = sim.scenario.model_copy(update={"resume_hold": 0.0})
            assert await talk(holder, session_resumption={"handle": handle})
        finally:
            await holder.aio.aclose()
            holder.close()
        assert (token.used, token.resumed) == (1, 1)


async def test_the_official_client_with_a_wrong_key_gets_no_token(
    genai: Any, client_of: Any, certificate: Any
) -> None:
    from google.genai import errors

    async with GeminiSimulator(ssl=certificate.server(), valid_keys={"another"}) as sim:
        owner = client_of(sim, "a-key")
        try:
            with pytest.raises(errors.ClientError) as caught:
                await minted_by(owner)
        finally:
            owner.close()
        assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
        assert caught.value.message == "API key not valid. Please pass a valid API key."
        assert sim.tokens.minted == []

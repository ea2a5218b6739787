"""The simulated service from outside: bare WebSockets for refusals, the official client for a call."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from ari_gemini.errors import ConfigError
from ari_gemini.simulator import gemini_live as subject
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario

LIVE = "models/gemini-3.8-live"
THINKING = "models/gemini-3.8-live-extended-thinking"
INVALID = "Request contains an invalid argument."
FAST = 20.0
UNDECODABLE = '(TYPE_BYTES), Base64 decoding failed for "%%%"'


def unknown(name: str, path: str) -> str:
    return f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Cannot find field."[:123]


def not_found(model: str) -> str:
    text = (
        f"{model} is not found for API version v1beta, or is not supported for bidiGenerateContent. "
        "Call ModelService.ListModels to see the list of available models"
    )
    return text[:123]


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(speed=FAST) as running:
        yield running


# --- doors ---


@pytest.mark.parametrize("change", [("", ""), ("v1beta", "v1alpha"), ("/ws", "//ws")])
async def test_paths_that_lead_in(sim: Any, dial: Any, kit: Any, change: tuple[str, str]) -> None:
    async with dial(sim, kit.PATH.replace(*change)) as client:
        await client.setup()


async def test_a_key_in_the_query(sim: Any, dial: Any, kit: Any) -> None:
    async with dial(sim, kit.PATH + "?key=secret", key=None) as client:
        await client.setup()


@pytest.mark.parametrize("change", [("v1beta", "v1"), ("Bidi", "Mono"), ("/ws", "")])
async def test_paths_that_lead_nowhere(sim: Any, dial: Any, kit: Any, change: tuple[str, str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with dial(sim, kit.PATH.replace(*change)):
            pass
    assert caught.value.response.status_code == 404
    assert sim.connections == 0


async def refused(sim: GeminiSimulator, dial: Any, *args: Any, **options: Any) -> tuple[int, str]:
    """What becomes of a client with these credentials: the upgrade works, then the close comes."""
    async with dial(sim, *args, **options) as client:
        end: tuple[int, str] = await client.end()
        return end


async def test_no_key(sim: Any, dial: Any) -> None:
    text = (
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API."
    )
    assert await refused(sim, dial, key=None) == (1008, text[:123])


async def test_a_wrong_key(dial: Any) -> None:
    async with GeminiSimulator(speed=FAST, valid_keys={"right"}) as sim:
        text = "API key not valid. Please pass a valid API key."
        assert await refused(sim, dial, key="wrong") == (1007, text)
        async with dial(sim, key="right") as client:
            await client.setup()


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?access_token=auth_tokens/bogus", {}),
        ("", {"Authorization": "Token auth_tokens/bogus"}),
        ("?access_token=auth_tokens/a", {"Authorization": "Token auth_tokens/a"}),
    ],
)
async def test_bogus_tokens(sim: Any, dial: Any, kit: Any, query: str, headers: dict[str, str]) -> None:
    end = await refused(sim, dial, kit.PATH + "Constrained" + query, key=None, headers=headers)
    assert end == (1007, "Missing or malformed auth token.")


async def test_quota_is_refused_at_the_upgrade(dial: Any) -> None:
    async with GeminiSimulator("quota") as sim:
        with pytest.raises(InvalidStatus) as caught:
            async with dial(sim):
                pass
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert b'"RESOURCE_EXHAUSTED"' in (caught.value.response.body or b"")


# --- refusals of what is sent; all kinds of them are in test_gemini_setup.py and test_gemini_messages.py ---


@pytest.mark.parametrize(
    ("setup", "end"),
    [
        ({"model": LIVE, "x": 1}, (1007, unknown("x", "setup"))),
        ({"model": "models/none"}, (1008, not_found("models/none"))),
        (
            {"model": LIVE, "generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
            (1007, "Thinking level is not supported for this model"),
        ),
        ({"model": THINKING}, (1007, "Thinking level must be specified for this model")),
        (
            {
                "model": LIVE,
                "generationConfig": {
                    "responseModalities": ["TEXT"],
                    "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
                },
            },
            (1007, "Cannot extract voices from a non-audio request"),
        ),
        (
            {"model": LIVE, "sessionResumption": {"transparent": True}},
            (1007, unknown("transparent", "setup.session_resumption")),
        ),
        (
            {"model": LIVE, "sessionResumption": {"handle": "bogus"}},
            (1008, "BidiGenerateContent session not found"),
        ),
        ({}, (1007, INVALID)),
    ],
)
async def test_setups_are_refused(sim: Any, dial: Any, setup: Any, end: tuple[int, str]) -> None:
    async with dial(sim) as client:
        await client.send({"setup": setup})
        assert await client.end() == end
        assert client.messages == []


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (
            {"realtimeInput": {"mediaChunks": [{"mimeType": "audio/pcm;rate=16000", "data": ""}]}},
            (1007, "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."),
        ),
        (
            {"realtimeInput": {"audio": {"mimeType": "audio/pcm;rate=16000", "data": "%%%"}}},
            (1007, f"Invalid value at 'realtime_input.audio.data' {UNDECODABLE}"),
        ),
        ({"realtimeInput": {"audio": {"mimeType": "audio/pcmu", "data": "AAAA"}}}, (1007, INVALID)),
        ({"clientContent": {"turns": [{"parts": [{"text": "hi"}]}]}}, (1007, INVALID)),
        ({"toolResponse": {"functionResponses": [{"name": "f", "response": {}}]}}, (1007, INVALID)),
        ({"realtimeInput": {"text": "a"}, "clientContent": {}}, None),
        ("not json", (1007, "Invalid JSON payload received. Unexpected token.")),
    ],
)
async def test_messages_are_refused(sim: Any, dial: Any, message: Any, end: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        await client.send(message)
        code, reason = await client.end()
        if end is None:
            end = (1007, reason)
            assert "oneof field 'message_type' is already set" in reason
        assert (code, reason) == end


async def test_audio_before_setup(sim: Any, dial: Any, kit: Any) -> None:
    async with dial(sim) as client:
        await client.send(kit.audio_message(bytes(320)))
        assert await client.end() == (1007, INVALID)


# --- scenarios that refuse ---


@pytest.mark.parametrize(
    ("scenario", "end"),
    [
        ("refuse_key", (1007, "API key not valid. Please pass a valid API key.")),
        ("refuse_model", (1008, not_found(LIVE))),
        ("refuse_field", (1007, unknown("contextWindowCompression", "setup"))),
        ("close_before_setup", (1011, "Internal error encountered.")),
        (
            "quota_close",
            (1011, "You exceeded your current quota, please check your plan and billing details."),
        ),
    ],
)
async def test_scenarios_that_refuse(dial: Any, scenario: str, end: tuple[int, str]) -> None:
    async with GeminiSimulator(scenario, speed=FAST) as sim, dial(sim) as client:
        await client.send({"setup": {"model": LIVE}})
        assert await client.end() == end
        assert client.messages == []


async def test_a_service_that_hangs(dial: Any) -> None:
    async with GeminiSimulator("hang", speed=FAST) as sim, dial(sim) as client:
        await client.send({"setup": {"model": LIVE}})
        async with asyncio.timeout(5):
            await (await client.socket.ping())
        session = await sim.wait_session()
        assert session.record.kinds() == ["connected", "fault"]


async def test_a_service_that_never_upgrades(dial: Any) -> None:
    async with GeminiSimulator("hang_upgrade") as sim:
        with pytest.raises(TimeoutError):
            async with dial(sim, open_timeout=0.2):
                pass
        assert sim.connections == 0
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        await sim.stop()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


# --- the server ---


async def test_frames_are_binary_and_no_pings_come(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        assert isinstance(await client.socket.recv(), bytes)
        link = (await sim.wait_session())._link
        assert (link.ping_interval, link.keepalive_task) == (None, None)


async def test_compression_is_for_those_who_offer_it(sim: Any, dial: Any) -> None:
    async with dial(sim, compression="deflate") as client:
        assert [type(extension).__name__ for extension in client.socket.protocol.extensions] == [
            "PerMessageDeflate"
        ]
        await client.setup()
    async with dial(sim) as client:
        assert client.socket.protocol.extensions == []


async def test_each_connection_is_a_session_and_gets_the_scenario_of_its_time(sim: Any, dial: Any) -> None:
    async with dial(sim) as first:
        await first.setup()
        sim.scenario = Scenario(answers="waiting")
        async with dial(sim) as second:
            await second.setup()
            await second.send({"realtimeInput": {"text": "hi"}})
            await second.until("waitingForInput")
        await first.send({"realtimeInput": {"text": "hi"}})
        await first.until("audio")
    assert sim.connections == 2
    assert [session.number for session in sim.sessions] == [1, 2]
    assert (await sim.wait_session(2)) is sim.sessions[1]


async def test_sessions_are_kept_in_bounds(dial: Any) -> None:
    async with GeminiSimulator(speed=FAST, keep_sessions=2, keep_sound=False) as sim:
        for _ in range(3):
            async with dial(sim) as client:
                await client.setup()
                await client.say("ask_hours")
                await client.until("turnComplete")
        assert [session.number for session in sim.sessions] == [2, 3]
        assert sim.sessions[-1].heard.pcm == b""
        assert sim.sessions[-1].said[0].sent_bytes == len(phrase("opening_hours").pcm)


async def test_stopping_closes_with_1001(dial: Any) -> None:
    sim = GeminiSimulator(speed=FAST)
    await sim.start()
    async with dial(sim) as client:
        await client.setup()
        stopping = asyncio.create_task(sim.stop())
        assert await client.end() == (1001, "")
        await stopping
    with pytest.raises(OSError, match="Connect"):
        async with dial(sim):
            pass


async def test_a_dropped_call_resumes_over_sockets(dial: Any) -> None:
    async with GeminiSimulator("drop_in_sentence", speed=6) as sim:
        async with dial(sim) as client:
            await client.setup(sessionResumption={})
            handle = (await client.until("sessionResumptionUpdate"))["sessionResumptionUpdate"]["newHandle"]
            await client.send({"realtimeInput": {"text": "Greet."}})
            assert await client.end() == (1006, "")
        async with dial(sim) as client:
            await client.setup(sessionResumption={"handle": handle})
            await client.until("audio")
            await client.until("turnComplete")
        second = await sim.wait_session(2)
        assert second.record.count("resumed") == 1
        assert phrase("greeting").text.endswith(second.said[0].text)


async def test_tls(dial: Any, certificate: Any) -> None:
    async with GeminiSimulator(speed=FAST, ssl=certificate.server()) as sim:
        assert sim.url == f"wss://127.0.0.1:{sim.port}"
        async with dial(sim, ssl=certificate.client()) as client:
            await client.setup()


# --- the command ---


async def test_serving_until_cancelled(dial: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: asyncio.Queue[GeminiSimulator] = asyncio.Queue()
    start = GeminiSimulator.start

    async def tell(sim: GeminiSimulator, *where: Any) -> None:
        await start(sim, *where)
        started.put_nowait(sim)

    monkeypatch.setattr(GeminiSimulator, "start", tell)
    with capture_logs() as lines:
        server = asyncio.create_task(
            subject.serve("127.0.0.1:0", certificate.cert, certificate.key, "greeting")
        )
        sim = await started.get()
        async with dial(sim, ssl=certificate.client()) as client:
            await client.setup()
            await client.send({"realtimeInput": {"text": "Greet."}})
            await client.until("audio")
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server
    told = [line["event"] for line in lines]
    assert told[:3] == ["simulated Gemini listens", "= a client connected", "< setup"]
    assert lines[0]["url"] == sim.url == f"wss://127.0.0.1:{sim.port}"
    assert "> the model answers" in told
    assert told[-1] == "simulated Gemini stopped"


@pytest.mark.parametrize(
    ("listen", "cert", "key", "scenario", "complaint"),
    [
        ("8090", None, None, "greeting", "--listen: '8090' is not HOST:PORT"),
        ("localhost:http", None, None, "greeting", "--listen: 'localhost:http' is not HOST:PORT"),
        ("localhost:70000", None, None, "greeting", "--listen: 'localhost:70000' is not HOST:PORT"),
        ("127.0.0.1:0", "x", None, "greeting", "--tls-cert and --tls-key belong together"),
        ("127.0.0.1:0", "/nowhere", "/nowhere", "greeting", "--tls-cert/--tls-key: .*No such file"),
        ("127.0.0.1:0", None, None, "nap", "no scenario 'nap'"),
    ],
)
async def test_wrong_arguments_are_one_clear_line(
    listen: str, cert: str | None, key: str | None, scenario: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await subject.serve(listen, cert, key, scenario)


async def test_a_taken_address_is_said(sim: Any) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{sim.port}"):
        await subject.serve(f"127.0.0.1:{sim.port}", None, None)


def test_scenarios_are_listed_here_too() -> None:
    assert "two_turns" in subject.list_scenarios()


# --- the official client ---


@pytest.fixture(scope="module")
def genai() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google import genai as module
    return module


class Conversation:
    """google-genai in a spoken conversation; every frame it got is in ``frames``."""

    def __init__(self, session: Any, sim: GeminiSimulator) -> None:
        self.session = session
        self.sim = sim

    async def turn(self) -> list[Any]:
        """The messages up to the end of the model's turn."""
        return [message async for message in self.session.receive()]

    async def say(self, types: Any, name: str) -> None:
        one = phrase(name)
        pcm = one.pcm + bytes(one.rate * 2)
        for start in range(0, len(pcm), 1600):
            blob = types.Blob(data=pcm[start : start + 1600], mime_type=f"audio/pcm;rate={one.rate}")
            await self.session.send_realtime_input(audio=blob)


def spoken(messages: list[Any]) -> bytes:
    return b"".join(message.data for message in messages if message.data)


def transcript(messages: list[Any]) -> str:
    contents = [message.server_content for message in messages if message.server_content]
    return "".join(one.output_transcription.text for one in contents if one.output_transcription)


@pytest.fixture
def official(genai: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    for name in (
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "HTTPS_PROXY",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def connected(sim: GeminiSimulator, **config: Any) -> AsyncIterator[Conversation]:
        client = genai.Client(
            api_key="a-key",
            http_options={"base_url": f"https://127.0.0.1:{sim.port}", "api_version": "v1beta"},
        )
        try:
            settings = {
                "response_modalities": ["AUDIO"],
                "input_audio_transcription": {},
                "output_audio_transcription": {},
                "session_resumption": {},
                **config,
            }
            async with client.aio.live.connect(model="gemini-3.8-live", config=settings) as session:
                assert session.setup_complete is not None
                yield Conversation(session, sim)
        finally:
            await client.aio.aclose()
            client.close()

    return connected


async def test_the_official_client_holds_a_conversation(
    genai: Any, official: Any, certificate: Any, kit: Any
) -> None:
    """Greeting, a question, a long answer interrupted, a function called, and a resumption, all over TLS."""
    types = genai.types
    frames: list[str | bytes] = []
    scenario = Scenario.model_validate(
        {
            "empties": 0.3,
            "turns": [
                {"on": "text", "say": ["greeting"]},
                {"expect": "ask_delivery", "say": ["long_story"]},
                {
                    "expect": "ask_person",
                    "first": ["one_moment"],
                    "calls": [{"name": "transfer_call", "args": {"to": "reception"}}],
                    "say": ["connecting"],
                },
            ],
        }
    )

    def tap(number: int, direction: str, frame: str | bytes) -> None:
        if direction == ">":
            frames.append(frame)

    tools = [
        {"function_declarations": [{"name": "transfer_call", "description": "Puts the caller through."}]}
    ]
    async with GeminiSimulator(scenario, speed=5, tap=tap, ssl=certificate.server()) as sim:
        async with official(sim, tools=tools) as talk:
            await talk.session.send_realtime_input(text="Greet the caller.")
            greeting = await talk.turn()
            assert spoken(greeting) == phrase("greeting").pcm
            assert transcript(greeting) == phrase("greeting").text
            handles = [one.session_resumption_update for one in greeting if one.session_resumption_update]
            assert [one.resumable for one in handles] == [True]

            session = await sim.wait_session()
            await talk.say(types, "ask_delivery")
            await session.wait_for("turn_start", count=2)
            await talk.say(types, "ask_person")
            story = await talk.turn()
            assert [one.server_content.interrupted for one in story if one.server_content].count(True) == 1
            assert phrase("long_story").pcm.startswith(spoken(story))
            heard = [one.server_content.input_transcription for one in story if one.server_content]
            assert [one.text for one in heard if one] == [phrase("ask_delivery").text]

            answer = await talk.turn()
            [call] = [call for one in answer if one.tool_call for call in one.tool_call.function_calls]
            assert (call.name, call.args) == ("transfer_call", {"to": "reception"})
            response = types.FunctionResponse(id=call.id, name=call.name, response={"output": "ok"})
            await talk.session.send_tool_response(function_responses=response)
            result = await talk.turn()
            assert spoken(result) == phrase("connecting").pcm
            assert session.record.count("tool_response") == 1

        await session.wait_closed()
        sim.scenario = scenario.model_copy(update={"resume_hold": 0.0})
        handle = {"handle": handles[0].new_handle}
        async with official(sim, tools=tools, session_resumption=handle) as talk:
            await talk.say(types, "ask_hours")
            assert spoken(await talk.turn()) == phrase("anything_else").pcm
        assert (await sim.wait_session(2)).record.count("resumed") == 1

    assert_frames_are_the_librarys(types, frames)


def assert_frames_are_the_librarys(types: Any, frames: list[str | bytes]) -> None:
    assert len(frames) > 50
    for frame in frames:
        assert isinstance(frame, bytes)
        message = json.loads(frame)
        if "voiceActivity" in message:
            # The library gives this field another name on its side of the wire.
            activity = message["voiceActivity"]
            activity["voiceActivityType"] = activity.pop("type")
        types.LiveServerMessage.model_validate(message)


async def test_the_official_client_is_told_what_is_wrong(genai: Any, official: Any, certificate: Any) -> None:
    from google.genai import errors

    async with GeminiSimulator(ssl=certificate.server(), valid_keys={"other"}) as sim:
        with pytest.raises(errors.APIError) as caught:
            async with official(sim):
                pass
    assert caught.value.code == 1007
    assert "API key not valid. Please pass a valid API key." in str(caught.value)

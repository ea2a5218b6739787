"""``ari-gemini check`` finds each thing that can be wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parent))

from support.hurry import hurried
from support.world import LONG, World, until

from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.server import AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.check import (
    ADVICE,
    BROKER_ADVICE,
    MODULES,
    Report,
    _advice,
    _crosses_in_clear,
    check,
    in_clear,
)
from ari_gemini.config import Config
from ari_gemini.errors import (
    HandleRefused,
    KeyRefused,
    MalformedMessage,
    ModelRefused,
    QuotaExceeded,
    SessionDropped,
    SessionError,
    SessionRefused,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini.broker import Broker
from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings
from ari_gemini.gemini.tokens import Minter
from ari_gemini.simulator import asterisk_rest
from ari_gemini.simulator.asterisk import Refused, SimulatedAsterisk
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.tools.settings import ToolsSettings

SIMULATED = asterisk_rest.MODULES


def test_the_simulated_asterisk_claims_to_have_every_module() -> None:
    assert set(MODULES) <= set(SIMULATED)


class Surroundings:
    """An Asterisk and a Gemini to be checked, and what the check said of them."""

    def __init__(self, scenario: str = "greeting", *, hurry: bool = True, **gemini: Any) -> None:
        self.asterisk = SimulatedAsterisk()
        self.gemini = GeminiSimulator(scenario, **gemini)
        self.said: list[str] = []
        self._hurry = hurried() if hurry else nullcontext()

    async def __aenter__(self) -> Surroundings:
        self._hurry.__enter__()
        self._before = psutil.Process().num_fds()
        self._tasks = asyncio.all_tasks()
        await self.asterisk.start()
        await self.gemini.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            self.nothing_left()
            await self.gemini.stop()
            await self.asterisk.stop()
            await until(lambda: asyncio.all_tasks() <= self._tasks, "tasks are left")
            await until(lambda: psutil.Process().num_fds() <= self._before, "file descriptors are left")
        finally:
            self._hurry.__exit__(None, None, None)

    def nothing_left(self) -> None:
        assert dict(self.asterisk.channels) == {}
        assert dict(self.asterisk.bridges) == {}
        assert self.asterisk.connected_apps() == set()

    def config(
        self, *, ari: Mapping[str, Any] | None = None, media: Mapping[str, Any] | None = None, **more: Any
    ) -> Config:
        usual = {"url": self.asterisk.url, "username": "gemini", "password": SecretStr("simulated")}
        key = GeminiSettings(base_url=self.gemini.url, api_key=SecretStr("a-key"))
        return Config(
            ari=AriSettings(**usual | dict(ari or {})),
            audiosocket=AudioSocketSettings(**{"listen": "127.0.0.1:0", **(media or {})}),
            **{"gemini": key, **more},
        )

    async def check(self, config: Config | None = None, *, before_start: bool = True) -> bool:
        async with asyncio.timeout(LONG):
            return await check(config or self.config(), before_start=before_start, say=self.said.append)

    def lines(self, sign: str) -> list[str]:
        """What was said with this sign: ok, note or FAIL."""
        return [line.removeprefix(sign).strip() for line in self.said if line.startswith(sign)]

    def advice(self) -> str:
        """The one piece of advice that was given."""
        (one,) = [line.strip() for line in self.said if line.startswith("      ")]
        return one

    def only_failure(self) -> str:
        (one,) = self.lines("FAIL")
        assert self.said[-1] == "something is wrong, see FAIL above"
        return one


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("ws://127.0.0.1:8090", False),
        ("http://[::1]:8088", False),
        ("http://localhost:8088", False),
        ("wss://generativelanguage.googleapis.com", False),
        ("https://10.0.0.5:8089", False),
        ("ws://10.0.0.5:8090", True),
        ("http://asterisk:8088", True),
    ],
)
def test_what_leaves_the_machine_unencrypted(url: str, clear: bool) -> None:
    assert in_clear(url) is clear


async def test_all_is_well_before_the_start() -> None:
    async with Surroundings() as here:
        assert await here.check()
        assert here.lines("FAIL") == []
        assert here.lines("note") == ["nobody is connected for Stasis(ari-gemini) yet"]
        assert [line.split()[0] for line in here.lines("ok")] == [
            "the",
            "Asterisk",
            "all",
            "Asterisk",
            "agent",
            "agent",
        ]
        assert here.said[-1] == "all is well"


async def test_all_is_well_beside_the_running_service_and_its_calls() -> None:
    async with World() as world:
        call = await world.talks()
        said: list[str] = []
        downs: list[str] = []
        world.service.client.on_down(downs.append)
        assert await check(world.service.config.model_copy(update=running(world)), say=said.append)
        assert "ok    the service is connected for Stasis(ari-gemini)" in said
        assert [line for line in said if line.startswith(("FAIL", "note"))] == []
        # nothing was taken from the service
        assert downs == []
        assert world.asterisk.connected_apps() == {"ari-gemini"}
        assert world.outcomes == []
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert len([c for c in world.asterisk.channels.values() if c.is_media]) == 1
        await until(lambda: world.service.media.connections == 1)
        call.hang_up()
        await world.over()
        await world.nothing_left()
        await world.another_works()


async def test_a_running_service_that_verifies_nobody_takes_the_check_for_no_call() -> None:
    async with World(audiosocket={"verify": "none"}) as world:
        changed = running(world)
        said: list[str] = []
        assert await check(world.service.config.model_copy(update=changed), say=said.append)
        assert world.gemini.connections == 1, "the check's own"
        assert world.outcomes == []
        await world.nothing_left()


def running(world: World) -> dict[str, Any]:
    """The settings of a service that listens on a port one knows."""
    here = str(world.service.media.address)
    return {"audiosocket": AudioSocketSettings(listen=here, advertise=here)}


async def test_the_service_is_not_there_though_it_should_be() -> None:
    async with Surroundings() as here:
        assert not await here.check(before_start=False)
        assert here.only_failure() == "nobody is connected for Stasis(ari-gemini)"
        assert "ari-gemini serve" in here.advice()


async def test_asterisk_cannot_be_reached() -> None:
    async with Surroundings() as here:
        config = here.config()
        await here.asterisk.stop()
        assert not await here.check(config)
        assert here.only_failure().startswith(f"no ARI at {config.ari.url}: ")
        assert "is Asterisk running" in here.advice()
        assert len(here.lines("ok")) == 3, "Gemini is checked all the same"


async def test_something_else_answers_where_asterisk_should_be() -> None:
    async with Surroundings() as here:
        other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        host, port = other.sockets[0].getsockname()
        async with other:
            assert not await here.check(here.config(ari={"url": f"http://{host}:{port}"}))
        assert here.only_failure().startswith("no ARI at ")


async def test_the_password_is_wrong() -> None:
    async with Surroundings() as here:
        assert not await here.check(here.config(ari={"password": SecretStr("s3cret-and-wrong")}))
        assert here.only_failure() == f"Asterisk at {here.asterisk.url} refuses user 'gemini'"
        assert "ari.conf" in here.advice()
        assert "s3cret" not in "".join(here.said)


@pytest.mark.parametrize("missing", [MODULES[:1], MODULES[-2:]])
async def test_a_module_is_missing(missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    there = [name for name in asterisk_rest.MODULES if name not in missing]
    monkeypatch.setattr(asterisk_rest, "MODULES", there)
    async with Surroundings() as here:
        assert not await here.check()
        assert here.only_failure() == f"modules not running in Asterisk: {', '.join(missing)}"
        assert "modules.conf" in here.advice()


def test_the_shipped_modules_conf_loads_what_the_check_wants() -> None:
    shipped = (Path(__file__).parents[1] / "asterisk" / "modules.conf").read_text().splitlines()
    assert [name for name in MODULES if f"load = {name}" not in shipped] == []


async def test_asterisk_cannot_connect_to_the_advertised_address() -> None:
    async with Surroundings() as here:
        nobody = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = nobody.sockets[0].getsockname()[1]
        nobody.close()
        await nobody.wait_closed()
        assert not await here.check(here.config(media={"advertise": f"127.0.0.1:{port}"}))
        assert here.only_failure().startswith(
            f"Asterisk cannot connect to audiosocket.advertise 127.0.0.1:{port}"
        )
        assert "firewall" in here.advice()


async def test_somebody_else_answers_at_the_advertised_address() -> None:
    async with Surroundings() as here:
        other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        async with other:
            assert not await here.check(here.config(media={"advertise": f"127.0.0.1:{port}"}))
            assert here.only_failure() == f"Asterisk connected to 127.0.0.1:{port}, but not to us"
            assert "somebody else" in here.advice()


async def test_allow_from_keeps_asterisk_out() -> None:
    async with Surroundings() as here:
        assert not await here.check(here.config(media={"allow_from": ["10.0.0.0/8"]}))
        assert here.only_failure().endswith("but not to us")
        assert "allow_from" in here.advice()


async def test_asterisk_fails_in_the_middle() -> None:
    async with Surroundings() as here:

        def fail(method: str, path: str) -> None:
            if path == "/asterisk/modules":
                raise Refused(503)

        here.asterisk.on_request = fail
        assert not await here.check()
        assert here.only_failure().startswith("Asterisk failed in the middle of the check: ")
        assert len(here.lines("ok")) == 4, "Gemini is checked all the same"


async def test_asterisk_fails_while_it_cleans_up() -> None:
    async with Surroundings() as here:
        hangups = 0

        def fail(method: str, path: str) -> None:
            nonlocal hangups
            if method == "DELETE":
                hangups += 1
                if hangups == 1:
                    raise Refused(500)

        here.asterisk.on_request = fail
        assert not await here.check()
        assert "in the middle" in here.only_failure()
        await until(lambda: not here.asterisk.channels)


@pytest.mark.parametrize(
    ("scenario", "said", "advice"),
    [
        ("refuse_key", "API key", "make a key in Google AI Studio"),
        ("refuse_model", "no such realtime model", "gemini.model must be a Live model"),
        ("refuse_field", "contextWindowCompression", "one of the agent's settings"),
        ("quota", "quota", "quota is used up: wait"),
        ("quota_close", "quota", "quota is used up: wait"),
        ("hang", "did not confirm the setup within 5 s", "can this machine reach gemini.base_url"),
        ("hang_upgrade", "did not answer within 5 s", "can this machine reach gemini.base_url"),
        ("close_before_setup", "1011", "can this machine reach gemini.base_url"),
    ],
)
async def test_gemini_refuses(scenario: str, said: str, advice: str) -> None:
    async with Surroundings(scenario) as here:
        assert not await here.check()
        assert here.only_failure().startswith("agent 'default' on gemini-3.8-live: ")
        assert said in here.only_failure()
        assert advice in here.advice()


async def test_every_agent_is_tried_and_named() -> None:
    async with Surroundings(valid_keys={"a-key"}) as here:
        agents = {"default": Agent(), "orders": Agent(instructions="{ORDER}", variables=("ORDER",))}
        assert await here.check(here.config(agents=agents))
        named = [line for line in here.lines("ok") if line.endswith("setup")]
        assert [line.split()[1] for line in named] == ["'default'", "'orders'"]
        assert here.gemini.connections == 2
        for session in here.gemini.sessions:
            assert (await session.wait_closed())[0] == 1000


async def test_a_key_that_is_wrong_is_not_told() -> None:
    async with Surroundings(valid_keys={"another"}) as here:
        assert not await here.check()
        assert "a-key" not in "".join(here.said)


async def test_without_ari_only_gemini_is_asked() -> None:
    async with Surroundings() as here:
        alone = AudioSocketSettings(listen="127.0.0.1:0", verify="none")
        gemini = GeminiSettings(base_url=here.gemini.url, api_key=SecretStr("a-key"))
        assert await here.check(Config(audiosocket=alone, gemini=gemini))
        assert here.asterisk.operations() == []
        assert "callers are not verified" in here.lines("note")[0]


@pytest.mark.parametrize(
    "kind",
    [
        KeyRefused, ModelRefused, SetupRefused, SessionRefused, QuotaExceeded,
        HandleRefused, SessionDropped, SessionUnavailable, MalformedMessage, SessionError,
    ],
)  # fmt: skip
def test_there_is_advice_for_everything(kind: type[SessionError]) -> None:
    assert _advice(kind("x")) in {advice for _, advice in ADVICE}


# Tools.


async def test_each_agents_tools_and_where_they_lead() -> None:
    server = str(Path(__file__).parent / "tools" / "mcp_servers" / "shop.py")
    tools = ToolsSettings(
        api_call={"allow": ["https://api.example.com/orders/"]},
        named={"order_status": {"description": "An order.", "url": "https://api.example.com/status"}},
        mcp={"shop": {"command": [sys.executable, server]}},
    )
    agents = {
        "default": Agent(),
        "shop": Agent(
            tools=("hangup_call", "transfer_call", "api_call", "order_status", "shop.add"),
            transfer={"sales": "internal,200,1"},
        ),
    }
    async with Surroundings(hurry=False) as around:
        assert await around.check(around.config(agents=agents, tools=tools))
        assert "agent 'default' has no tools: it can talk, and nothing else" in around.lines("ok")
        said = [line for line in around.lines("ok") if " may use " in line]
        assert said == [
            "agent 'shop' may use hangup_call: Asterisk: hangs up on the caller",
            "agent 'shop' may use transfer_call: sales = internal,200,1",
            "agent 'shop' may use api_call: GET, POST https://api.example.com/orders/",
            "agent 'shop' may use order_status: GET https://api.example.com/status",
            f"agent 'shop' may use shop.add: MCP shop: {sys.executable} {server}"[: len(said[-1])],
        ]
        assert around.gemini.sessions[-1].record.setup is not None
        declared = around.gemini.sessions[-1].record.setup["tools"][0]["functionDeclarations"]
        assert [one["name"] for one in declared] == list(agents["shop"].tools)


async def test_an_mcp_server_that_is_not_there() -> None:
    tools = ToolsSettings(mcp={"shop": {"command": ["/nonexistent/server"], "connect_timeout": 1}})
    async with Surroundings(hurry=False) as around:
        config = around.config(agents={"default": Agent(tools=("shop.add",))}, tools=tools)
        assert not await around.check(config)
        down, missing = around.lines("FAIL")
        assert down.startswith("MCP shop: /nonexistent/server: ")
        assert missing == "agent 'default' may use shop.add, but it is not there"


# --- with tokens ---

SECRET = "broker-secret-0123456789"


def with_tokens(here: Surroundings, **given: Any) -> Config:
    key = {"base_url": here.gemini.url, "auth": "ephemeral", "api_key": SecretStr("a-key")}
    return here.config(gemini=GeminiSettings(**key | given))


async def test_a_token_is_minted_and_a_session_opened_with_it() -> None:
    async with Surroundings() as here:
        assert await here.check(with_tokens(here))
        assert here.lines("ok")[-1] == (
            "agent 'default' on gemini-3.8-live: a token is minted, and Gemini accepts token, model and setup"
        )
        [token] = here.gemini.tokens.minted
        assert token.used == 1


async def test_a_token_of_the_broker() -> None:
    async with Surroundings() as here:
        google = GeminiSettings(base_url=here.gemini.url, api_key="a-key", broker_secret=SECRET)
        minter = Minter(google)
        broker = Broker(google, BrokerSettings(listen="127.0.0.1:0"), minter)
        _, port = await broker.start()
        url = f"http://127.0.0.1:{port}"
        try:
            config = with_tokens(here, api_key=None, broker_url=url, broker_secret=SECRET)
            assert await here.check(config)
            assert "the broker gives a token, and Gemini accepts" in here.lines("ok")[-1]
            other = with_tokens(here, api_key=None, broker_url=url, broker_secret="x" * 16)
            here.said.clear()
            assert not await here.check(other)
            assert "refuses broker_secret" in here.only_failure()
            assert here.advice().startswith("broker_secret must be the broker's")
        finally:
            await broker.close()
            await minter.close()


async def test_a_broker_that_is_not_there_or_not_near() -> None:
    async with Surroundings() as here:
        config = with_tokens(here, broker_url="http://127.0.0.1:9", broker_secret=SECRET)
        assert not await here.check(config)
        assert "no connection to 127.0.0.1:9" in here.only_failure()
        assert here.advice().startswith("can this machine reach gemini.broker_url")


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ({"base_url": "ws://gemini.test"}, ["gemini.base_url is ws://: key and"]),
        ({"base_url": "ws://gemini.test", "auth": "ephemeral"}, ["gemini.base_url is ws://: token and"]),
        (
            {"auth": "ephemeral", "broker_url": "http://broker.test", "broker_secret": SECRET},
            ["gemini.broker_url is http://: secret and"],
        ),
        ({"auth": "ephemeral", "broker_url": "https://broker.test", "broker_secret": SECRET}, []),
    ],
)
def test_what_is_said_of_unencrypted_ways(given: dict[str, Any], notes: list[str]) -> None:
    said: list[str] = []
    _crosses_in_clear(Report(said.append), GeminiSettings(**given))
    assert len(said) == len(notes)
    assert all(note in line for note, line in zip(notes, said, strict=True))


@pytest.mark.parametrize("kind", [row[0] for row in ADVICE])
def test_there_is_advice_with_a_broker_too(kind: type[SessionError]) -> None:
    assert _advice(kind("x"), broker=True) in {advice for _, advice in (*BROKER_ADVICE, *ADVICE)}

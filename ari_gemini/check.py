"""``ari-gemini check``: what stands between a caller and the model, asked one by one, in plain words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit
from uuid import uuid4

from ari_gemini.app import CHECK_UUID
from ari_gemini.ari.channel import Channel
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.connection import Connection
from ari_gemini.audiosocket.server import AudioSocketServer, AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.call.names import MEDIA_PREFIX
from ari_gemini.config import Config
from ari_gemini.errors import (
    AriDenied,
    AriError,
    AriNotFound,
    AriRejected,
    AriUnavailable,
    ConfigError,
    KeyRefused,
    ModelRefused,
    QuotaExceeded,
    SessionError,
    SessionRefused,
    SessionUnavailable,
)
from ari_gemini.gemini.session import open_session
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.tokens import TokenSource, token_source
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import SessionSettings
from ari_gemini.tools.catalogue import Catalogue

MODULES = (
    "res_ari.so",
    "res_ari_applications.so",
    "res_ari_asterisk.so",
    "res_ari_bridges.so",
    "res_ari_channels.so",
    "res_ari_events.so",
    "res_stasis.so",
    "app_stasis.so",
    "bridge_simple.so",
    "bridge_softmix.so",
    "res_audiosocket.so",
    "chan_audiosocket.so",
    "app_audiosocket.so",
)
"""What ways A and B load in Asterisk (measured on 22.10.1 with ``autoload=no``)."""

REACH_SECONDS = 5.0
"""Asterisk gives a dialled AudioSocket 2 s (``res_audiosocket.c``, MAX_CONNECT_TIMEOUT_MSEC); and margin."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """Prints each finding as it is made and remembers whether all was well."""

    say: Say
    well: bool = True

    def good(self, what: str) -> None:
        self.say(f"ok    {what}")

    def note(self, what: str) -> None:
        self.say(f"note  {what}")

    def bad(self, what: str, advice: str) -> None:
        self.well = False
        self.say(f"FAIL  {what}")
        self.say(f"      {advice}")


async def check(
    config: Config,
    *,
    before_start: bool = False,
    say: Say = print,
    environ: Mapping[str, str] | None = None,
) -> bool:
    """Ask everything; True when nothing is wrong. Places no call and leaves nothing behind."""
    report = Report(say)
    report.good("the configuration can be read")
    if config.ari is None:
        report.note(
            "no [ari] section: only the AudioSocket() application is served, and callers are not verified"
        )
    elif config.ari.mode == "outbound":
        report.note(
            f"Asterisk connects to {config.ari.listen}, once per call: nothing can be asked of it from here"
        )
    else:
        await _asterisk(report, config, config.ari, before_start=before_start)
    _crosses_in_clear(report, config.gemini)
    catalogue = config.catalogue(environ or {})
    async with _tool_servers(report, catalogue), _tokens(config.gemini) as tokens:
        for name, agent in config.agents.items():
            session = agent.session_settings({}, _tools(report, name, agent, catalogue))
            await _gemini(report, config.gemini, name, session, tokens)
    say("all is well" if report.well else "something is wrong, see FAIL above")
    return report.well


async def _asterisk(report: Report, config: Config, settings: AriSettings, *, before_start: bool) -> None:
    client = AriClient(settings.model_copy(update={"app": f"{settings.app}-check-{os.getpid()}"}))
    try:
        await client.open()
        info = await client.asterisk_info()
    except AriDenied:
        await client.close()
        report.bad(
            f"Asterisk at {settings.url} refuses user {settings.username!r}",
            f"the section [{settings.username}] of ari.conf and ARI_PASSWORD must hold the same password",
        )
        return
    except AriError as error:
        await client.close()
        report.bad(
            f"no ARI at {settings.url}: {error}",
            "is Asterisk running, enabled = yes in http.conf and ari.conf, bindaddr and port as in ari.url?",
        )
        return
    if in_clear(settings.url):
        report.note("ari.url is http://: the password crosses the network unencrypted")
    report.good(f"Asterisk {info.version} answers at {settings.url}, user {settings.username!r} may enter")
    try:
        await _modules(report, client)
        await _application(report, client, settings.app, before_start=before_start)
        async with _events(client):
            await _media(report, client, config.audiosocket)
    except AriError as error:
        report.bad(f"Asterisk failed in the middle of the check: {error}", "see Asterisk's own log")
    finally:
        await client.close()


async def _modules(report: Report, client: AriClient) -> None:
    running = {name for name, status in (await client.modules()).items() if status == "Running"}
    missing = [name for name in MODULES if name not in running]
    if missing:
        report.bad(
            f"modules not running in Asterisk: {', '.join(missing)}",
            "load them in modules.conf (asterisk/ has one)",
        )
    else:
        report.good(f"all {len(MODULES)} modules that are needed run")


async def _application(report: Report, client: AriClient, app: str, *, before_start: bool) -> None:
    try:
        await client.application(app)
    except AriNotFound:
        if before_start:
            report.note(f"nobody is connected for Stasis({app}) yet")
        else:
            report.bad(
                f"nobody is connected for Stasis({app})", "start `ari-gemini serve`, or look at its log"
            )
    else:
        report.good(f"the service is connected for Stasis({app})")


@asynccontextmanager
async def _events(client: AriClient) -> AsyncIterator[None]:
    """An application of our own for a media channel to enter; the service's own stays with the service."""
    running = asyncio.create_task(client.run())
    try:
        async with asyncio.timeout(REACH_SECONDS):
            await client.wait_connected()
        yield
    except TimeoutError:
        raise AriUnavailable("the event connection does not come up") from None
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def _media(report: Report, client: AriClient, settings: AudioSocketSettings) -> None:
    """Let Asterisk dial the advertised address: the service listens there or, if it does not run, we do."""
    channel = Channel(client, f"{MEDIA_PREFIX}check-{uuid4()}")
    arrived = asyncio.Event()

    def identified(connection: Connection) -> None:
        if connection.uuid == CHECK_UUID:
            arrived.set()
        connection.refuse("a check")

    server = AudioSocketServer(settings, identified)
    ours = True
    try:
        await server.start()
    except ConfigError:
        ours = False
    advertised = server.advertised if ours else settings.advertise_address
    try:
        await client.external_media(
            channel_id=channel.id, app=client.settings.app, external_host=str(advertised), data=CHECK_UUID
        )
        if ours:
            async with asyncio.timeout(REACH_SECONDS):
                await arrived.wait()
    except AriRejected as error:
        report.bad(
            f"Asterisk cannot connect to audiosocket.advertise {advertised}: {error}",
            "the address must be the service's as Asterisk sees it, and no firewall may stand between",
        )
    except TimeoutError:
        report.bad(
            f"Asterisk connected to {advertised}, but not to us",
            "somebody else listens at audiosocket.advertise, or allow_from keeps Asterisk out",
        )
    else:
        report.good(f"Asterisk reaches {advertised} for AudioSocket")
    finally:
        try:
            await channel.hangup()
        finally:
            await server.close()


@asynccontextmanager
async def _tool_servers(report: Report, catalogue: Catalogue) -> AsyncIterator[None]:
    """Let the MCP servers that are wanted run meanwhile, and say which do not."""
    running = asyncio.create_task(catalogue.run())
    try:
        for name, server in catalogue.servers.items():
            if not await server.wait_ready(server.settings.connect_timeout):
                why = server.trouble or "it does not get ready"
                report.bad(f"{server.goes_to}: {why}", f"see [tools.mcp.{name}]; does it run by itself?")
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def _tools(report: Report, name: str, agent: Agent, catalogue: Catalogue) -> list[FunctionDeclaration]:
    """Say what the agent may do, and where that leads; the declarations of it."""
    if not agent.tools:
        report.good(f"agent {name!r} has no tools: it can talk, and nothing else")
    tools = {tool.name: tool for tool in catalogue.pick(agent.tools, agent.transfer)}
    for wanted in agent.tools:
        if wanted in tools:
            report.good(f"agent {name!r} may use {wanted}: {tools[wanted].goes_to}")
        else:
            report.bad(
                f"agent {name!r} may use {wanted}, but it is not there", "the server offers other tools"
            )
    return [tool.declaration for tool in tools.values()]


def _crosses_in_clear(report: Report, settings: GeminiSettings) -> None:
    if in_clear(settings.base_url):
        what = "key" if settings.auth == "api_key" else "token"
        report.note(f"gemini.base_url is ws://: {what} and conversation cross the network unencrypted")
    if settings.broker_url is not None and in_clear(settings.broker_url):
        report.note("gemini.broker_url is http://: secret and tokens cross the network unencrypted")


@asynccontextmanager
async def _tokens(settings: GeminiSettings) -> AsyncIterator[TokenSource | None]:
    tokens = token_source(settings)
    try:
        yield tokens
    finally:
        if tokens is not None:
            await tokens.close()


async def _gemini(
    report: Report, settings: GeminiSettings, agent: str, session: SessionSettings, tokens: TokenSource | None
) -> None:
    """Open a session as the agent would and close it: key, model and every field of the setup are tried."""
    who = f"agent {agent!r} on {settings.model}"
    try:
        opened = await open_session(settings, session, tokens=tokens)
    except SessionError as error:
        report.bad(f"{who}: {error}", _advice(error, broker=settings.broker_url is not None))
        return
    await opened.close()
    if tokens is None:
        report.good(f"{who}: Gemini accepts key, model and setup")
    else:
        minted = "the broker gives a token" if settings.broker_url is not None else "a token is minted"
        report.good(f"{who}: {minted}, and Gemini accepts token, model and setup")


def in_clear(url: str) -> bool:
    """Whether what goes to ``url`` leaves this machine unencrypted."""
    parts = urlsplit(url)
    if parts.scheme in {"https", "wss"} or parts.hostname == "localhost":
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True  # a name, which may lead anywhere


def _advice(error: SessionError, *, broker: bool = False) -> str:
    """The first fitting row of ADVICE, after those of BROKER_ADVICE where a broker has its part in it."""
    rows = (*BROKER_ADVICE, *ADVICE) if broker else ADVICE
    return next(advice for kind, advice in rows if isinstance(error, kind))


BROKER_ADVICE: tuple[tuple[type[SessionError], str], ...] = (
    (KeyRefused, "broker_secret must be the broker's, its key a good one, and its clock right: see its log"),
    (ModelRefused, "gemini.model must be one of the broker's broker.models"),
    (SessionUnavailable, "can this machine reach gemini.broker_url and gemini.base_url, and are they up?"),
)
"""The same where tokens come from a broker."""

ADVICE: tuple[tuple[type[SessionError], str], ...] = (
    (KeyRefused, "make a key in Google AI Studio and give it as GEMINI_API_KEY or gemini.api_key_file"),
    (ModelRefused, "gemini.model must be a Live model that this key may use"),
    (SessionRefused, "one of the agent's settings is not for this model"),
    (QuotaExceeded, "the key's quota is used up: wait, or raise it"),
    (SessionError, "can this machine reach gemini.base_url, through its firewall and proxy?"),
)
"""What to do about each kind of refusal, the most special first."""

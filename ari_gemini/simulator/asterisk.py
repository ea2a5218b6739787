"""A simulated Asterisk: ARI over HTTP, events over a WebSocket, and AudioSocket connections to the service.

It behaves as a real Asterisk 22.10.1 did in the same situations, as far as calls to this service go. SIP, RTP
and the dialplan are not simulated: a call begins at ``Stasis()`` or ``AudioSocket()``. The service can call
others (``parties``), and whoever is in one bridge hears each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, Unpack
from uuid import UUID, uuid4

from ari_gemini.simulator.asterisk_http import HttpFront, Request
from ari_gemini.simulator.asterisk_media import Phone, SilentVoice, Voice
from ari_gemini.simulator.asterisk_outbound import Dialler, Outbound
from ari_gemini.simulator.asterisk_party import Party
from ari_gemini.simulator.asterisk_rest import Refused, Rest
from ari_gemini.simulator.asterisk_state import NORMAL_CLEARING, Continuation, SimBridge, SimChannel
from ari_gemini.simulator.asterisk_switch import Switch
from ari_gemini.simulator.caller_voice import Line, ScriptedVoice
from ari_gemini.simulator.phrases import phrase

__all__ = [
    "CallOptions",
    "Continuation",
    "Outbound",
    "Party",
    "Refused",
    "Request",
    "SimulatedAsterisk",
    "SimulatedCall",
    "Voice",
    "serve",
]

USERNAME = "gemini"
PASSWORD = "simulated"  # noqa: S105  # of a stand-in that listens on loopback
SCRIPT = ("ask_hours", "ask_order", "say_goodbye")
"""What the caller of :func:`serve` says, each after the answer to the one before."""
POLL_SECONDS = 0.05
"""How often :func:`serve` looks whether the caller is done, and whether the service has cleaned up."""
CLEAN_UP_SECONDS = 3.0
"""How long a service may take to take down a call that has ended."""


class CallOptions(TypedDict, total=False):
    """What is particular about a caller."""

    number: str
    """Caller id; ``4711`` unless given."""
    name: str
    exten: str
    """What was dialled."""
    context: str
    voice: Voice
    """Who speaks and hears; :class:`SilentVoice` unless given."""
    variables: Mapping[str, str]
    """Channel variables the dialplan has set."""
    stays: bool
    """When the service sends the caller on, the dialplan keeps the channel instead of hanging it up."""


class SimulatedCall:
    """The side of one call that has a phone: a caller's, or a called party's."""

    def __init__(self, switch: Switch, channel: SimChannel, voice: Voice) -> None:
        self._switch = switch
        self.channel = channel
        self.voice = voice

    @property
    def id(self) -> str:
        """The channel's id."""
        return self.channel.id

    @property
    def continued(self) -> Continuation | None:
        """Where the caller went on in the dialplan; None as long as he has not."""
        return self.channel.continued

    @property
    def variables(self) -> Mapping[str, str]:
        """The channel's variables."""
        return self.channel.variables

    def hang_up(self, cause: int = NORMAL_CLEARING) -> None:
        """The caller hangs up, now. ``cause`` is a Q.850 number."""
        self._switch.hang_up(self.channel, cause, told=True)

    def press(self, digits: str) -> None:
        """The caller presses keys."""
        for digit in digits:
            self._switch.press(self.channel, digit)

    async def wait_answered(self) -> None:
        """Wait until the service answered."""
        await self.channel.answered.wait()

    async def wait_left(self) -> None:
        """Wait until the service let go of the call: hung up, or sent on in the dialplan."""
        await self.channel.left.wait()

    async def wait_gone(self) -> None:
        """Wait until the channel does not exist any more."""
        await self.channel.gone.wait()


class SimulatedAsterisk(HttpFront):
    """One simulated Asterisk. ``start``, place calls, ``stop``; or as ``async with``.

    To break it: ``media_refused``, ``delay``, ``on_request``, ``drop_events``, ``send_raw``,
    ``stop_listening``, ``restart``.
    """

    def __init__(
        self, username: str = USERNAME, password: str = PASSWORD, outbound: Outbound | None = None
    ) -> None:
        """``outbound``: its application's calls come on connections that this Asterisk makes."""
        super().__init__(username, password)
        self._switch = Switch(self.emit, lambda app: app in self.connected_apps())
        self._rest = Rest(self._switch, self.connected_apps)
        self._serial = itertools.count()
        self.dialler = Dialler(outbound, self, self._switch, self._rest) if outbound is not None else None

    @property
    def parties(self) -> dict[str, Party]:
        """Who can be called, by dial string (``PJSIP/1002``, ``Local/1002@from-internal/n``)."""
        return self._rest.exchange.parties

    @property
    def places(self) -> set[str] | None:
        """What the dialplan has, as ``context,extension,priority``; None: whatever one asks for."""
        return self._switch.places

    @places.setter
    def places(self, places: set[str] | None) -> None:
        self._switch.places = places

    async def wait_called(self, number: int = 1) -> SimulatedCall:
        """The ``number``-th call to any party, from the moment it rings: the party's side of it."""
        channel = await self._rest.exchange.called(number)
        if channel.phone is None:
            raise AssertionError("a party without a phone")
        return SimulatedCall(self._switch, channel, channel.phone.voice)

    @property
    def channels(self) -> Mapping[str, SimChannel]:
        """Channels that exist now, by id."""
        return self._switch.channels

    @property
    def bridges(self) -> Mapping[str, SimBridge]:
        """Bridges that exist now, by id."""
        return self._switch.bridges

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. After ``stop_listening`` the channels are still there.

        Raises OSError.
        """
        await self.listen(self._rest, host, port)

    async def stop(self) -> None:
        """End as a process ends: connections and channels are gone, and no event tells of it. Idempotent."""
        await self.stop_listening()
        if self.dialler is not None:
            await self.dialler.close()
        await self._switch.wait_quiet()

    async def restart(self) -> None:
        """Stop and start again at the same address. Raises OSError."""
        await self.stop()
        await self.start(self.host, self.port)

    async def __aenter__(self) -> SimulatedAsterisk:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def call(
        self,
        app: str = "ari-gemini",
        args: Sequence[str] = ("default",),
        **options: Unpack[CallOptions],
    ) -> SimulatedCall:
        """A caller dials (``700`` unless told) and the dialplan says ``Stasis(app,args...)``.

        When nobody is connected for ``app``, the call has left it at once.
        """
        call = self._new_call("700", options)
        if self.dialler is not None and self.dialler.settings.app == app:
            self.dialler.take(call.channel, list(args))
        else:
            self._switch.enter_stasis(call.channel, app, list(args))
        return call

    async def audiosocket_call(
        self, address: str, call_id: UUID | None = None, **options: Unpack[CallOptions]
    ) -> SimulatedCall:
        """A caller dials (``701`` unless told); the dialplan answers, then ``AudioSocket(call_id,address)``.

        Raises OSError or TimeoutError when nobody answers at ``address`` (HOST:PORT): the channel is gone.
        """
        call = self._new_call("701", options)
        self._switch.answer(call.channel)
        await self._switch.audiosocket_app(call.channel, address, call_id or uuid4())
        return call

    def _new_call(self, exten: str, options: CallOptions) -> SimulatedCall:
        serial = next(self._serial)
        voice = options.get("voice") or SilentVoice()
        channel = SimChannel(
            f"{int(time.time())}.{serial}",
            f"PJSIP/simulated-{serial:08x}",
            caller_number=options.get("number", "4711"),
            caller_name=options.get("name", ""),
            context=options.get("context", "ari-gemini"),
            exten=options.get("exten", exten),
            variables=dict(options.get("variables", {})),
            phone=Phone(voice),
            dialplan_stays=options.get("stays", False),
        )
        self._switch.add(channel)
        return SimulatedCall(self._switch, channel, voice)


async def serve(
    listen: str,
    *,
    username: str = USERNAME,
    password: str = PASSWORD,
    app: str = "ari-gemini",
    agent: str = "default",
    calls: int = 0,
    interval: float = 5.0,
    say: Callable[[str], None] = print,
) -> None:
    """Play an Asterisk at ``listen`` (HOST:PORT) with a caller who rings again and again; say what happens.

    Every call enters ``Stasis(app,agent)``, asks a few questions, and hangs up; the next follows ``interval``
    seconds later. Returns after ``calls`` calls, never when that is 0. Raises OSError when it cannot listen
    and ValueError when ``listen`` is no address. Cancelling hangs up and closes everything.
    """
    host, _, port = listen.rpartition(":")
    asterisk = SimulatedAsterisk(username, password)
    await asterisk.start(host.strip("[]"), int(port))
    try:
        say(f"Simulated Asterisk at {asterisk.url}, user {username}; waiting for {app!r} to connect")
        for number in itertools.count(1):
            await asterisk.wait_connected(app)
            await _tell_one_call(asterisk, app, agent, _prefixed(f"call {number}: ", say))
            if number == calls:
                return
            await asyncio.sleep(interval)
    finally:
        await asterisk.stop()


def _prefixed(prefix: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: say(prefix + text)


async def _tell_one_call(
    asterisk: SimulatedAsterisk, app: str, agent: str, say: Callable[[str], None]
) -> None:
    voice = ScriptedVoice(_script(), asyncio.get_running_loop().time)
    call = await asterisk.call(app, [agent], voice=voice)
    channel = call.channel
    say(f"{channel.caller_number} dials {channel.exten}: Stasis({channel.app_data})")
    answered = asyncio.create_task(_say_when(channel.answered, lambda: say("answered")))
    try:
        while not (voice.done or channel.left.is_set()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(channel.left.wait(), POLL_SECONDS)
    finally:
        answered.cancel()
    say(_ending(call))
    call.hang_up()
    for turn in voice.report().turns:
        latency = "no answer" if turn.latency_ms is None else f"answered after {turn.latency_ms:.0f} ms"
        say(f'"{turn.text}" {latency}')
    await _await_clean_up(asterisk, say)


async def _await_clean_up(asterisk: SimulatedAsterisk, say: Callable[[str], None]) -> None:
    """Give the service time to take down what it made for the call, and say what it left."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLEAN_UP_SECONDS):
            while asterisk.channels or asterisk.bridges:  # noqa: ASYNC110  # nothing tells when they are gone
                await asyncio.sleep(POLL_SECONDS)
    if asterisk.channels or asterisk.bridges:
        left = f"{len(asterisk.channels)} channels and {len(asterisk.bridges)} bridges"
        say(f"the service left {left} behind")


def _script() -> list[Line]:
    return [Line(phrase(name).pcm, phrase(name).text) for name in SCRIPT]


def _ending(call: SimulatedCall) -> str:
    channel = call.channel
    if channel.hangup_cause is None and not channel.left.is_set():
        return "the caller hangs up"
    if channel.continued is None:
        return f"the service hung up (cause {channel.hangup_cause})"
    if channel.variables.get("STASISSTATUS") == "FAILED":
        return "nobody took the call"
    cause = channel.variables.get("ARI_GEMINI_CAUSE", "no cause given")
    return f"the service sent the caller on in the dialplan ({cause})"


async def _say_when(event: asyncio.Event, say: Callable[[], None]) -> None:
    await event.wait()
    say()

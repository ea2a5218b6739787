"""A real SIP phone: baresip in a network namespace of its own.

::

    async with Phone(work, asterisk, "1001") as phone:
        await phone.dial("700")
        await phone.established()
        await phone.say(speechlike(2.0))        # the microphone, from now on; silence before and after
        await phone.tap.wait_loud(Way.TO_PHONE)
        await phone.hang_up()
        await phone.closed()
        match = align(phone.heard(), reference)

The phone speaks G.711 alone, 20 ms packets. Its jitter buffer is off: ``heard()`` is what arrived, sample by
sample. ``tap`` listens on its wire from the beginning. One call at a time; several one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from .asterisk import Asterisk
from .jail import Jail, Network
from .sound import RATE, Samples, read_wav, write_wav
from .tap import RtpTap, Way

_CONTROL_PORT = 4444
_SILENCE_SECONDS = 300
"""How long the microphone goes on with silence: longer than any test."""

_CONFIG = """\
poll_method epoll
sip_listen {address}:5060
net_interface sip0
call_local_timeout 120
call_max_calls 4
audio_source aufile,/run/phone/{microphone}
audio_player aufile,/run/phone/player.wav
audio_alert aufile,/run/phone/alert.wav
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
audio_txmode poll
audio_buffer 20-160
rtp_ports 10000-10998
rtcp_mux no
jitter_buffer_type off
ringback_disabled yes
module_path /usr/lib/baresip/modules
module g711.so
module aufile.so
module sndfile.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {address}:{control}
snd_path /run/phone
"""
_ACCOUNT = (
    '"Phone {number}" <sip:{number}@{host}:{port};transport=udp>;auth_user={number};auth_pass={password}'
    ";regint={interval};audio_codecs={codec}/8000/1;ptime=20;answermode={answer}\n"
)


_T = TypeVar("_T")


class PhoneError(Exception):
    """baresip did not start or refused a command; the message says what it printed."""


class Event:
    """One event of baresip, for example CALL_ESTABLISHED. ``time``: CLOCK_MONOTONIC seconds, when it came."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.time = time.monotonic()
        self.type: str = raw.get("type", "")
        self.param: str = raw.get("param", "")

    def __repr__(self) -> str:
        return f"<{self.type} {self.param}>"


class Phone:
    """The phone ``number`` (1001 to 1024) of ``asterisk``. ``work``: an empty directory of its own.

    ``codec`` is "PCMU" or "PCMA". With ``register=True`` it can be called; ``answer`` is "auto" or "manual".
    """

    def __init__(
        self,
        work: Path,
        asterisk: Asterisk,
        number: str = "1001",
        *,
        codec: str = "PCMU",
        register: bool = False,
        answer: str = "manual",
    ) -> None:
        self.number = number
        self.events: list[Event] = []
        """Every event so far, oldest first."""
        self.last_said = 0.0
        """When (CLOCK_MONOTONIC) ``say`` last asked for the microphone to change."""
        self._asterisk = asterisk
        self._work = work
        self._account = _ACCOUNT.format(
            number=number, host=asterisk.sip_address, port=asterisk.sip_port,
            password=asterisk.phone_password, interval=60 if register else 0, codec=codec, answer=answer,
        )  # fmt: skip
        self._register = register
        self._microphones = itertools.count()
        self._tokens = itertools.count()
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()
        self._mark = 0
        self._dialled = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._network = Network()
        try:
            self.tap = RtpTap(self._network.interface)
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End baresip, then its network. A call in progress is not hung up: the phone is simply gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "_writer"):
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        if hasattr(self, "_jail"):
            self._jail.kill()
        if hasattr(self, "tap"):
            self.tap.close()
        self._network.close()

    @property
    def address(self) -> str:
        """The phone's own IP address."""
        return self._network.peer

    # --- a call

    async def dial(self, extension: str, microphone: Samples | None = None) -> None:
        """Dial; returns once baresip has begun. Earlier events no longer count.

        The microphone is silent, or has ``microphone`` to say from the first packet on.
        """
        await self.say(np.zeros(0, np.int16) if microphone is None else microphone)
        self.forget()
        await self.command("dial", f"sip:{extension}@{self._asterisk.sip_address}")

    async def answer(self) -> None:
        """Accept the incoming call (``register=True``, ``answer="manual"``)."""
        await self.command("accept")

    async def hang_up(self) -> None:
        """Hang up; returns once baresip has sent BYE or CANCEL. Does nothing when the call is over."""
        try:
            await self.command("hangup")
        except PhoneError as error:
            if "no active call" not in str(error):
                raise

    async def ringing(self, timeout: float = 10.0) -> Event:
        """The 180 Ringing of the call (or 183 Session Progress)."""
        return await self.event("CALL_RINGING", "CALL_PROGRESS", timeout=timeout)

    async def established(self, timeout: float = 10.0) -> Event:
        """The call is answered."""
        return await self.event("CALL_ESTABLISHED", timeout=timeout)

    async def incoming(self, timeout: float = 10.0) -> Event:
        """Somebody calls this phone."""
        return await self.event("CALL_INCOMING", timeout=timeout)

    async def closed(self, timeout: float = 10.0) -> Event:
        """The call is over, whoever ended it; ``param`` is the reason, such as "503 Service Unavailable"."""
        return await self.event("CALL_CLOSED", timeout=timeout)

    async def event(self, *types: str, timeout: float = 10.0) -> Event:
        """The first event of one of these types since ``dial``, past or to come. Raises TimeoutError."""
        return await self._wait(
            lambda: next((e for e in self.events[self._mark :] if e.type in types), None), timeout, str(types)
        )

    def forget(self) -> None:
        """Events so far no longer count for ``event`` and its kin (``dial`` does it by itself)."""
        self._mark = len(self.events)
        self._dialled = time.monotonic()

    # --- sound

    async def say(self, samples: Samples) -> float:
        """Play ``samples`` (8 kHz) into the microphone from now on, then silence; ends what is being said.

        Returns the CLOCK_MONOTONIC time of the request; the tap tells when the first packet left.
        """
        name = self._write_microphone(samples)
        self.last_said = time.monotonic()
        await self.command("ausrc", f"aufile,/run/phone/{name}")
        return self.last_said

    async def mute(self) -> float:
        """Stop talking: silence from now on."""
        return await self.say(np.zeros(0, np.int16))

    async def press(self, digits: str) -> None:
        """Send RFC 4733 digits; returns when baresip has accepted them, they go out one after another."""
        for digit in digits:
            await self.command("sndcode", digit)

    def digits(self) -> str:
        """The RFC 4733 digits the phone was sent since ``dial``, complete with their end, off its wire."""
        return self.tap.digits(Way.TO_PHONE, since=self._dialled)

    async def received_digits(self, count: int, timeout: float = 10.0) -> str:
        """Wait until that many digits have been received since ``dial``, and return them."""
        deadline = time.monotonic() + timeout
        while len(self.digits()) < count:
            await self.tap.wait(
                lambda p: p.way is Way.TO_PHONE and p.digit is not None, deadline - time.monotonic()
            )
        return self.digits()

    def reported_digits(self) -> str:
        """The digits baresip itself reported since ``dial``.

        baresip 1.1 notices a telephone-event only where it follows a voice packet, and never its end.
        """
        return "".join(e.param for e in self.events[self._mark :] if e.type == "CALL_DTMF_START")

    def heard(self) -> Samples:
        """What the phone heard in its last call (8 kHz), decoded by baresip, packet after packet."""
        return self._recording("dec")

    def sent(self) -> Samples:
        """What the phone's microphone gave to the encoder in its last call (8 kHz)."""
        return self._recording("enc")

    def log(self) -> str:
        """What baresip printed so far."""
        return self._jail.log.read_text(errors="replace")

    # --- inside

    async def command(self, name: str, params: str = "") -> str:
        """One command of baresip's menu; returns its output. Raises PhoneError when baresip refuses it."""
        token = str(next(self._tokens))
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        body = json.dumps({"command": name, "params": params, "token": token}).encode()
        self._writer.write(b"%d:%s," % (len(body), body))
        async with asyncio.timeout(10):
            result = await answer
        if not result.get("ok"):
            raise PhoneError(f"{name} {params}: {result.get('data')}")
        return str(result.get("data", ""))

    async def _start(self) -> None:
        directory = self._work / "phone"
        directory.mkdir(parents=True, exist_ok=True)
        config = _CONFIG.format(
            address=self.address,
            control=_CONTROL_PORT,
            microphone=self._write_microphone(np.zeros(0, np.int16)),
        )
        (directory / "config").write_text(config)
        (directory / "accounts").write_text(self._account)
        (directory / "contacts").touch()
        self._jail = Jail(
            ["baresip", "-v", "-f", "/run/phone"],
            log=self._work / "baresip.log",
            binds={"/run/phone": directory},
            network=self._network,
        )
        reader, self._writer = await self._connect()
        self._tasks.append(asyncio.create_task(self._read(reader)))
        if self._register:
            await self._registered()

    async def _registered(self) -> None:
        """Until Asterisk can reach the phone. baresip's own event may come before anyone listens."""
        async with asyncio.timeout(10):
            path = f"endpoints/PJSIP/{self.number}"
            while (await self._asterisk.ari("GET", path))["state"] != "online":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = time.monotonic() + 10
        while True:
            try:
                return await asyncio.open_connection(self.address, _CONTROL_PORT)
            except OSError as error:
                if not self._jail.running or time.monotonic() > deadline:
                    raise PhoneError(f"baresip did not start: {self.log()[-2000:]}") from error
                await asyncio.sleep(0.02)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Events and answers, as netstrings of JSON. Ends when baresip closes the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                message = json.loads((await reader.readexactly(length + 1))[:-1])
                if message.get("response"):
                    waiting = self._answers.pop(message.get("token", ""), None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                    continue
                self.events.append(Event(message))
                async with self._changed:
                    self._changed.notify_all()

    async def _wait(self, look: Callable[[], _T | None], timeout: float, what: str) -> _T:
        try:
            async with asyncio.timeout(timeout), self._changed:
                while (found := look()) is None:
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"phone {self.number} waited for {what}; events: {self.events}") from None

    def _write_microphone(self, samples: Samples) -> str:
        """A WAV file of ``samples`` and then a long silence, which takes no room on the disk."""
        path = self._work / "phone" / f"mic-{next(self._microphones)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, np.concatenate([samples, np.zeros(_SILENCE_SECONDS * RATE, np.int16)]))
        return path.name

    def _recording(self, side: str) -> Samples:
        files = sorted((self._work / "phone").glob(f"dump-*-{side}.wav"), key=lambda p: p.stat().st_mtime_ns)
        if not files:
            return np.zeros(0, np.int16)
        samples, rate = read_wav(files[-1])
        if rate != RATE:
            raise PhoneError(f"{files[-1].name}: {rate} Hz")
        return samples


PhoneMaker = Callable[..., Awaitable[Phone]]
"""The ``phone`` fixture: ``alice = await phone("1001", codec="PCMA")``."""

"""The real Asterisk, run with the repository's ``asterisk/`` folder.

The folder is laid over the distribution's own /etc/asterisk, as an operator does it, and a ``local/`` folder
is added, as an operator writes it: addresses of this run, passwords, the phones, and a few extensions of the
tests.

``Asterisk`` itself is made once for all tests (the ``asterisk`` fixture). Its SIP and RTP live on an address
that only the phones' namespaces can reach; ARI on a loopback address of its own (127.231.x.y:8088), so two
runs on one machine never meet.

Extensions for the tests, beside 700 (way A) and 701 (way B) of the shipped dialplan (context from-internal):

    600  answers and echoes                    603  answers, sends the digits 1 5 #, waits
    601  answers and waits in silence          604  rings for ever
    602  answers and hangs up after 1 s        605  Congestion
    1001 to 1024  dial that phone
    702  way A by outbound WebSocket: Asterisk connects to ``outbound_address``, once per call, with the same
         user and password as ARI's; the service's application is OUTBOUND_APP

Callers without SIP, for load: ``await asterisk.call(...)`` gives a ``LocalCaller``: both halves of a Local
channel, one in the extension, the other playing one file and recording what it hears.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .jail import Jail, Network, tree
from .sound import RATE, Samples

SHIPPED = Path(__file__).parents[3] / "asterisk"
PHONES = tuple(str(number) for number in range(1001, 1025))
"""The phone numbers that exist."""
OUTBOUND_APP = "ari-gemini-outbound"
"""What ``Stasis()`` names in 702: another application than in 700, so that both ways work side by side."""
_HTTP_PORT, _SIP_PORT, _OUTBOUND_PORT = 8088, 5060, 8787

_TEST_EXTENSIONS = """
[from-internal](+)
exten => 600,1,Answer()
 same => n,Echo()
exten => 601,1,Answer()
 same => n,Wait(600)
exten => 602,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()
exten => 603,1,Answer()
 same => n,Wait(0.5)
 same => n,SendDTMF(15#)
 same => n,Wait(600)
exten => 604,1,Ringing()
 same => n,Wait(600)
exten => 605,1,Congestion(5)
; Outbound. What comes after it is written down: how it ended, and why.
exten => 702,1,Stasis(ari-gemini-outbound,default)
 same => n,Goto(ari-gemini,700,2)
; The phones themselves.
exten => _10XX,1,Dial(PJSIP/${EXTEN},30)
 same => n,Hangup()

[test-caller]
exten => talk,1,ExecIf($["${HEARD}" != ""]?MixMonitor(,r(${HEARD})n))
 same => n,Playback(${MICROPHONE})
 same => n,Wait(600)
"""


class AsteriskError(Exception):
    """Asterisk did not start, or answered a request with an error (the message holds its answer)."""


class AsteriskCrashed(AsteriskError):
    """It ended by itself: 22.10.1 may, when connection and media of an outbound call break at the same
    instant (asterisk/README.md). That is no finding about the service."""


class Asterisk:
    """One Asterisk. ``work`` is a directory of its own; everything it writes is there.

    ``local`` replaces whole files of the operator's local/ folder by others, for example {"ari.conf": ""}.
    """

    def __init__(self, work: Path, *, local: Mapping[str, str] | None = None) -> None:
        self._work = work
        self._overrides = dict(local or {})
        self._network = Network()
        self._jail: Jail | None = None
        number = self._network.number
        self.address = f"127.231.{(number >> 6) & 255}.{(number & 63) * 4 + 1}"
        """Loopback address of ARI; also a good place for a test's AudioSocket server."""
        self.sip_address = self._network.host
        self.sip_port = _SIP_PORT
        self.ari_url = f"http://{self.address}:{_HTTP_PORT}"
        self.outbound_address = f"{self.address}:{_OUTBOUND_PORT}"
        self.username = "gemini"
        self.password = secrets.token_hex(12)
        self.phone_password = secrets.token_hex(12)
        self.sounds = work / "sounds"
        """Seen by Asterisk as /run/sounds: microphones and recordings of LocalCallers."""
        try:
            self._lay_out()
        except BaseException:
            self._network.close()
            raise

    # --- life

    def start(self) -> None:
        """Start and wait until ARI answers. Blocks; main thread only."""
        self._spawn()
        deadline = time.monotonic() + 20
        while not self._try_ready(deadline):
            time.sleep(0.02)

    def close(self) -> None:
        """Stop Asterisk and take its addresses away."""
        if self._jail is not None:
            self._jail.stop()
            self._jail = None
        self._network.close()

    async def restart(self) -> None:
        """Kill Asterisk (nothing is told to anyone) and start it anew on the same addresses."""
        self.kill()
        self._spawn()
        deadline = time.monotonic() + 20
        while not await asyncio.to_thread(self._try_ready, deadline):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """``kill -9``. ``restart`` brings it back."""
        self._running().kill()

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay, nothing answers. ``resume`` undoes it."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self._running().pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        """False before ``start`` and after ``kill``."""
        return self._jail is not None and self._jail.running

    @property
    def pid(self) -> int:
        """Asterisk's own process id."""
        return self._running().pid

    def write_local(self, name: str, text: str) -> None:
        """Replace one file of local/; Asterisk sees it at its next start, or ``core reload``."""
        (self._etc / "local" / name).write_text(text)

    # --- questions

    async def ari(
        self, method: str, path: str, body: Mapping[str, object] | None = None, **query: str
    ) -> Any:
        """One ARI request: ``await asterisk.ari("POST", "channels", endpoint="Local/600@demo", ...)``.

        Returns the decoded answer, None when it is empty. Raises AsteriskError for a status of 400 and more.
        """
        return await asyncio.to_thread(self._ari, method, path, body, query)

    async def channels(self) -> list[dict[str, Any]]:
        """The channels there are, as ARI tells them."""
        return list(await self.ari("GET", "channels"))

    async def bridges(self) -> list[dict[str, Any]]:
        """The bridges there are, as ARI tells them."""
        return list(await self.ari("GET", "bridges"))

    async def empty(self, timeout: float = 5.0) -> None:
        """Until no channel and no bridge is left.

        Raises AssertionError, naming them, after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            channels, bridges = await self.channels(), await self.bridges()
            if not channels and not bridges:
                return
            if time.monotonic() > deadline:
                left = [c["name"] for c in channels] + [b["id"] for b in bridges]
                raise AssertionError(f"left in Asterisk: {', '.join(left)}")
            await asyncio.sleep(0.05)

    async def cli(self, command: str) -> str:
        """What the command line interface prints for ``command``."""
        return await self._running().run("asterisk", "-rx", command)

    async def set_global(self, name: str, value: str) -> None:
        """Set a global variable of the dialplan, for example ARI_GEMINI_AUDIOSOCKET."""
        await self.ari("POST", "asterisk/variable", variable=name, value=value)

    def log(self) -> list[str]:
        """The lines of its log file so far, over all restarts."""
        path = self._work / "log" / "messages.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def file_descriptors(self) -> int:
        """How many file descriptors Asterisk has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_bytes(self) -> int:
        """How much memory Asterisk holds."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    # --- callers without SIP

    async def call(
        self,
        extension: str,
        microphone: Samples,
        *,
        context: str = "from-internal",
        caller: str = "1999",
        variables: Mapping[str, str] | None = None,
        record: bool = True,
    ) -> LocalCaller:
        """A caller that dials ``extension`` and says ``microphone`` (8 kHz) once it is answered. Unless
        ``record`` is False, it records what it hears.

        The microphone should hold silence for the rest of the call: at its end the caller falls silent.
        """
        name = secrets.token_hex(6)
        (self.sounds / f"{name}-mic.sln").write_bytes(microphone.astype("<i2").tobytes())
        heard = self.sounds / f"{name}-heard.sln"
        body = {
            "variables": {
                "MICROPHONE": f"/run/sounds/{name}-mic",
                "HEARD": f"/run/sounds/{heard.name}" if record else "",
                **(variables or {}),
            }
        }
        channel = f"caller-{name}"
        # Without its format a Local channel has Asterisk resample everything to 192 kHz and back.
        await self.ari(
            "POST", "channels", body, endpoint=f"Local/{extension}@{context}/n", context="test-caller",
            extension="talk", priority="1", callerId=caller, formats="slin", channelId=channel,
            otherChannelId=f"{channel}-2",
        )  # fmt: skip
        return LocalCaller(self, channel, heard)

    # --- inside

    def _lay_out(self) -> None:
        source = tree()
        shutil.copytree(source / "etc/asterisk", self._etc, symlinks=True)
        shutil.copytree(SHIPPED, self._etc, dirs_exist_ok=True)
        shutil.copytree(source / "var/lib/asterisk", self._work / "lib", symlinks=True)
        for name in ("log", "spool", "run", "cache", "sounds", "etc/local"):
            (self._work / name).mkdir(exist_ok=True)
        for name, text in {**self._local(), **self._overrides}.items():
            (self._etc / "local" / name).write_text(text)

    @property
    def _etc(self) -> Path:
        return self._work / "etc"

    def _local(self) -> dict[str, str]:
        phones = "".join(
            f'[{number}](phone)\nauth = {number}\naors = {number}\ncallerid = "Phone {number}" <{number}>\n'
            f"[{number}](phone-auth)\nusername = {number}\npassword = {self.phone_password}\n"
            f"[{number}](phone-aor)\n"
            for number in PHONES
        )
        return {
            "http.conf": f"[general](+)\nbindaddr = {self.address}\nbindport = {_HTTP_PORT}\n",
            "ari.conf": (
                f"[{self.username}](+)\npassword = {self.password}\n"
                f"[workers](ari-gemini-outbound)\napps = {OUTBOUND_APP}\nlocal_ari_user = {self.username}\n"
            ),
            "websocket_client.conf": (
                f"[ari-gemini](ari-gemini-worker)\nuri = ws://{self.outbound_address}/ari\n"
                f"username = {self.username}\npassword = {self.password}\n"
            ),
            "pjsip.conf": f"[transport-udp](+)\nbind = {self.sip_address}:{_SIP_PORT}\n{phones}",
            "extensions.conf": _TEST_EXTENSIONS,
            "modules.conf": "load = app_mixmonitor.so\n",
        }

    def _spawn(self) -> None:
        self._jail = Jail(
            ["asterisk", "-f", "-C", "/etc/asterisk/asterisk.conf"],
            log=self._work / "console.log",
            binds={
                "/etc/asterisk": self._etc,
                "/var/lib/asterisk": self._work / "lib",
                "/var/log/asterisk": self._work / "log",
                "/var/spool/asterisk": self._work / "spool",
                "/var/cache/asterisk": self._work / "cache",
                "/run/asterisk": self._work / "run",
                "/run/sounds": self.sounds,
            },
        )

    def _running(self) -> Jail:
        if self._jail is None:
            raise AsteriskError("Asterisk was not started")
        return self._jail

    def _try_ready(self, deadline: float) -> bool:
        jail = self._running()
        # ARI answers before the last module (the dialplan) is loaded; this command waits for that.
        waited = subprocess.run(
            jail.command("asterisk", "-rx", "core waitfullybooted"),
            capture_output=True,
            check=False,
            timeout=20,
        )
        if waited.returncode == 0 and self._listens():
            return True
        if not jail.running or time.monotonic() > deadline:
            console = jail.log.read_text(errors="replace")
            raise AsteriskError(f"Asterisk did not start:\n{console[-2000:]}")
        return False

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, _HTTP_PORT), timeout=5):
            return True
        return False

    def _ari(
        self, method: str, path: str, body: Mapping[str, object] | None, query: Mapping[str, str]
    ) -> Any:
        connection = http.client.HTTPConnection(self.address, _HTTP_PORT, timeout=10)
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        target = f"/ari/{path}?{urllib.parse.urlencode(query)}"
        try:
            connection.request(method, target, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise AsteriskError(f"{method} {path}: {answer.status} {text}")
        return json.loads(text) if text else None


class LocalCaller:
    """A caller made by ``Asterisk.call``.

    ``channel``: the id of its own half; the dialplan's extension runs on ``channel`` + "-2".
    """

    def __init__(self, asterisk: Asterisk, channel: str, heard: Path) -> None:
        self._asterisk = asterisk
        self._heard = heard
        self.channel = channel

    async def up(self) -> bool:
        """Whether the call has been answered and not ended yet."""
        return any(c["id"] == self.channel and c["state"] == "Up" for c in await self._asterisk.channels())

    async def hang_up(self) -> None:
        """Hang up; nothing happens when the call is over already."""
        try:
            await self._asterisk.ari("DELETE", f"channels/{self.channel}")
        except AsteriskError as error:
            if ": 404 " not in str(error):
                raise

    def heard(self) -> Samples:
        """What the caller has heard since it was answered (8 kHz).

        Asterisk writes it 2 s at a time; it is complete once the call is over.
        """
        data = self._heard.read_bytes() if self._heard.exists() else b""
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)

    @property
    def seconds(self) -> float:
        """How much it has heard."""
        return len(self.heard()) / RATE

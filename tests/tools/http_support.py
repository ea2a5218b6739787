"""A hostile HTTP server on loopback, a name server that lies, and a record of every address connected to."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import datetime
import functools
import ipaddress
import shutil
import socket
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.http_client import HttpClient, Request
from ari_gemini.tools.http_settings import HttpSettings
from ari_gemini.tools.url import Prefix, normalise

LONG = 30.0
"""Seconds: only a hanging test gets there."""
LOOPBACK = "127.0.0.0/8"

Peer = Callable[["Heard", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    """One request as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    def get(self, name: str) -> list[str]:
        """Every value of a header field."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class HostileServer:
    """Answers with whatever ``peer`` writes, and keeps what it heard."""

    peer: Peer
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request has come."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection is over."""
    port: int = 0
    busy: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.busy[task] = writer
        task.add_done_callback(self.busy.pop)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await read_request(reader)
            self.heard.append(request)
            self.asked.set()
            await self.peer(request, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.gone.set()

    async def close(self) -> None:
        """Drop every connection and wait until its peer has noticed."""
        for writer in self.busy.values():
            writer.transport.abort()
        await asyncio.gather(*self.busy)


async def read_request(reader: asyncio.StreamReader) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head[:-4].split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (text.partition(":") for text in fields)]
    heard = Heard(line, headers, b"", reader)
    if length := heard.get("Content-Length"):
        heard.body = await reader.readexactly(int(length[0]))
    return heard


def says(*parts: bytes) -> Peer:
    """Writes these bytes and hangs up."""

    async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return peer


def answer(body: bytes = b"", status: str = "200 OK", **fields: str) -> bytes:
    """A whole answer; ``content_type`` and the like become header fields."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def routes(**by_path: bytes) -> Peer:
    """Answers ``/NAME…`` with what is given under NAME."""

    async def peer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(by_path[heard.target.strip("/").partition("?")[0].partition("/")[0]])
        await writer.drain()

    return peer


def endless(head: bytes, chunk: bytes, sent: list[int]) -> Peer:
    """Writes ``chunk`` for ever, counting its bytes in ``sent``."""

    async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
            sent.append(len(chunk))

    return peer


async def silent(heard: Heard, _writer: asyncio.StreamWriter) -> None:
    await heard.reader.read()


def dripping(head: bytes, drop: bytes) -> Peer:
    """Sends ``head`` and then ``drop`` again and again, with pauses: never idle, never done."""

    async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.01)

    return peer


@contextlib.asynccontextmanager
async def serve(
    peer: Peer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[HostileServer]:
    hostile = HostileServer(peer)
    server = await asyncio.start_server(hostile, host, port, ssl=tls, limit=1 << 20)
    hostile.port = server.sockets[0].getsockname()[1]
    try:
        yield hostile
    finally:
        server.close()
        await hostile.close()
        await server.wait_closed()


def zone() -> dict[str, list[Sequence[str]]]:
    """Two hosts on loopback."""
    return {"api.example": [["127.0.0.1"]], "other.example": [["127.0.0.2"]]}


@dataclass
class NameServer:
    """Answers each name with its next list of addresses, the last one again and again."""

    zone: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.zone.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass
class Net:
    """A client between a lying name server and sockets that are watched."""

    names: NameServer
    client: HttpClient
    connected: list[str]
    log: Any

    async def fetch(self, url: str, *allow: str, method: str = "GET", **given: Any) -> dict[str, Any]:
        """The answer as the model gets it. ``allow``: prefixes; none: the URL's origin."""
        target = normalise(url)
        within = [Prefix.parse(text) for text in allow or (target.origin,)]
        request = Request(method=method, url=target, within=within, label="label", **given)
        async with asyncio.timeout(LONG):
            answer = await self.client.fetch(request, self.log)
        self.check()
        return answer.for_model()

    def check(self) -> None:
        """Nothing but loopback was ever connected to."""
        assert all(ipaddress.ip_address(address).is_loopback for address in self.connected)


def net(zone: dict[str, list[Sequence[str]]] | None = None, **settings: Any) -> Net:
    """``zone``: names and their answers, in turn. Unless ``ca_file`` says whom, TLS trusts nobody."""
    connected: list[str] = []

    def watched(info: aiohttp.AddrInfoType) -> socket.socket:
        address = str(info[4][0])
        connected.append(address)
        assert ipaddress.ip_address(address).is_loopback, "the tests connect to loopback alone"
        return socket.socket(*info[:3])

    names = NameServer(zone or {})
    usual = {"networks": [LOOPBACK], "timeout": LONG, "ca_file": nobody()}
    given = HttpSettings(**(usual | settings))
    client = HttpClient(given, resolve=names, open_socket=watched)
    return Net(names, client, connected, structlog.get_logger())


def context() -> ToolContext:
    """For tools that touch nothing of the call."""
    call: Any = SimpleNamespace(id="test")
    return ToolContext(call, structlog.get_logger())


@contextlib.contextmanager
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def bomb() -> bytes:
    """A megabyte of gzip that becomes a gigabyte of zeros. Its checksum is wrong; nobody gets that far."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * 1024 + packer.flush() + bytes(8)


def certificate(directory: Path, name: str) -> Path:
    """A self-signed certificate for ``name``, an address or a host, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ari-gemini tests")])
    now = datetime.datetime.now(datetime.UTC)
    try:
        named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        named = x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([named]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name.replace(':', '_')}.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@functools.cache
def nobody() -> Path:
    """A certificate that no server has."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    return certificate(directory, "nobody.example")


def server_tls(path: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    return tls

"""The store in Redis: a real one, which dies, freezes, asks for a password, and speaks TLS."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from redis.asyncio import Redis
from support.ports import free_port
from support.redis_server import RedisServer
from support.states import state

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.state.record import MAX_BYTES, encode
from ari_gemini.state.redis import CONNECTIONS, PREFIX, RedisStore
from ari_gemini.state.store import key_of

PASSWORD = "pass-w0rd"


@asynccontextmanager
async def opened(url: str, timeout: float = 10.0, **settings: float | Path) -> AsyncIterator[RedisStore]:
    store = RedisStore(SecretStr(url), timeout=timeout, **settings)  # type: ignore[arg-type]
    yield store
    await store.close()


@asynccontextmanager
async def plain(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    yield client
    await client.aclose()


async def test_the_key_is_ours_and_expires(one_redis: RedisServer) -> None:
    call = uuid4().hex
    async with opened(one_redis.url, lifetime=100.0) as store, plain(one_redis) as client:
        await store.save(state(call))
        key = f"ari-gemini:call:{key_of(call)}"
        assert await client.get(key) == encode(state(call))
        assert 99_000 < await client.pttl(key) <= 100_000
        await client.pexpire(key, 50_000)
        await store.save(state(call))
        assert 99_000 < await client.pttl(key) <= 100_000
        await client.pexpire(key, 0)
        assert await store.load(call) is None


@pytest.mark.parametrize("content", [b"{", b"x" * (2 * MAX_BYTES), encode(state("another"))])
async def test_what_is_no_record_of_the_call_is_a_state_error(one_redis: RedisServer, content: bytes) -> None:
    call = uuid4().hex
    async with opened(one_redis.url) as store, plain(one_redis) as client:
        await client.set(PREFIX + key_of(call), content)
        with pytest.raises(StateError) as wrong:
            await store.load(call)
        assert not isinstance(wrong.value, StateUnavailable)
        sent = (await client.info("stats"))["total_net_output_bytes"]
        with pytest.raises(StateError):
            await store.load(call)
        assert (await client.info("stats"))["total_net_output_bytes"] - sent < 1.5 * MAX_BYTES
        await store.save(state(call))
        assert await store.load(call) == state(call)


async def test_what_is_no_string_is_unavailable_until_it_is_replaced(one_redis: RedisServer) -> None:
    call = uuid4().hex
    async with opened(one_redis.url) as store, plain(one_redis) as client:
        await client.rpush(PREFIX + key_of(call), "x")
        with pytest.raises(StateUnavailable, match="WRONGTYPE"):
            await store.load(call)
        await store.save(state(call))
        assert await store.load(call) == state(call)


async def test_connections_are_few_and_kept(one_redis: RedisServer) -> None:
    calls = [uuid4().hex for _ in range(50)]
    async with plain(one_redis) as client:
        before = int((await client.info("stats"))["total_connections_received"])
        async with opened(one_redis.url) as store:
            for _ in range(3):
                await asyncio.gather(*(store.save(state(call)) for call in calls))
        after = int((await client.info("stats"))["total_connections_received"])
    assert 1 <= after - before <= CONNECTIONS


async def test_one_that_is_not_there_is_unavailable() -> None:
    async with opened(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0") as store:
        for operation in (store.save(state()), store.load("x"), store.delete("x")):
            with pytest.raises(StateUnavailable, match="Redis: ConnectionError") as wrong:
                await operation
            assert PASSWORD not in str(wrong.value)


async def test_killed_and_started_again_in_the_middle(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with opened(server.url) as store:
            await asyncio.gather(*(store.save(state(str(number))) for number in range(20)))
            server.kill()
            for operation in (store.save(state()), store.load("1"), store.delete("1")):
                with pytest.raises(StateUnavailable):
                    await operation
            server.start()
            assert await store.load("1") is None, "at the first attempt"
            await asyncio.gather(*(store.save(state(str(number))) for number in range(20)))
            assert await store.load("1") == state("1")
            server.kill()
            server.start()
            await store.save(state("2"))
            assert await store.load("2") == state("2"), "nobody noticed"


async def test_one_that_freezes_is_waited_for_so_long_and_answers_are_never_mixed_up(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with opened(server.url, timeout=0.3) as store:
            for call in "abc":
                await store.save(state(call))
            server.freeze()
            outcomes = await asyncio.gather(
                *(store.load(call) for call in "ab" * CONNECTIONS),
                store.save(state("c", agent="x")),
                store.delete("d"),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {StateUnavailable}
            assert {str(outcome) for outcome in outcomes} == {"no answer within 0.3 s"}
            cancelled = asyncio.create_task(store.load("a"))
            await asyncio.sleep(0.05)
            cancelled.cancel()
            await asyncio.wait({cancelled})
            assert cancelled.cancelled()
            server.thaw()
            store._timeout = 10.0
            for _ in range(CONNECTIONS):
                found = await asyncio.gather(*(store.load(call) for call in "ab"))
                assert [each and each.call_id for each in found] == ["a", "b"]


async def test_a_password_opens_and_is_never_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with RedisServer(tmp_path, "--requirepass", PASSWORD) as server:
        for password, works in ((PASSWORD, True), (f"{PASSWORD}-wrong", False), ("", False)):
            url = server.url.replace("//", f"//:{password}@" if password else "//")
            async with opened(url) as store:
                if works:
                    await store.save(state())
                    assert await store.load(state().call_id) == state()
                    server.kill()
                with pytest.raises(StateUnavailable) as wrong:
                    await store.save(state())
                said += [str(wrong.value), repr(wrong.value), repr(store)]
                assert wrong.value.__cause__ is None
                assert wrong.value.__suppress_context__
                if works:
                    server.start()
    gc.collect()
    captured = capfd.readouterr()
    assert PASSWORD not in "".join([*said, caplog.text, captured.out, captured.err])
    assert any("WRONGPASS" in each or "invalid" in each for each in said)


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = directory / "redis.pem", directory / "redis.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return pem, secret


async def test_tls_trusts_only_whom_it_is_told_to(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    files = ("--tls-cert-file", os.fspath(pem), "--tls-key-file", os.fspath(key), "--tls-auth-clients", "no")
    with RedisServer(tmp_path, *files, tls=True) as server:
        url = server.url.replace("redis:", "rediss:")
        async with opened(url, ca_file=pem) as store:
            await store.save(state())
            assert await store.load(state().call_id) == state()
        async with opened(url) as store:
            with pytest.raises(StateUnavailable, match=r"(?i)certificate"):
                await store.load("x")
        async with opened(url.replace("127.0.0.1", "localhost"), ca_file=pem) as store:
            with pytest.raises(StateUnavailable, match=r"(?i)certificate"):
                await store.load("x")

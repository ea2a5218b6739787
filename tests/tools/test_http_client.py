"""Against servers that lie, stall, flood and send elsewhere. Nothing but loopback is ever connected to."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parent))

from http_support import (
    LONG,
    Heard,
    Net,
    answer,
    bomb,
    certificate,
    dripping,
    endless,
    logged,
    net,
    routes,
    says,
    serve,
    server_tls,
    silent,
    zone,
)

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.tools.http_client import HttpClient
from ari_gemini.tools.http_settings import Credential, HttpSettings

HEAD = b"HTTP/1.1 200 OK\r\n"
SECRET = "Bearer s3cr3t-of-orders"


def credential(origin: str, value: str = SECRET, header: str = "Authorization") -> Credential:
    return Credential(origin=origin, value=SecretStr(value), header=header)


async def refused(there: Net, url: str, *allow: str, **given: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await there.fetch(url, *allow, **given)
    there.check()
    words = str(caught.value)
    assert not any(bad in words for bad in ("127.", "10.0", "169.254", "s3cr3t", "Error", "errno", "://"))
    return words


# -- what is sent --------


async def test_the_request() -> None:
    there = net(zone())
    async with serve(says(answer(b'{"ok": 1}', content_type="application/json"))) as server:
        url = f"http://API.example:{server.port}/a%7Eb/../ü;x?q=%2f&r"
        assert await there.fetch(url) == {"status": 200, "body": {"ok": 1}}
    (heard,) = server.heard
    assert heard.line == "GET /%C3%BC;x?q=%2F&r HTTP/1.1"
    names = {name.lower() for name, _ in heard.headers}
    assert names - {"connection"} == {"accept", "accept-encoding", "host", "user-agent"}
    assert heard.get("Host") == [f"api.example:{server.port}"]
    assert heard.get("Accept-Encoding") == ["identity"]
    assert heard.get("User-Agent")[0].startswith("ari-gemini/")
    assert heard.body == b""
    assert there.names.asked == ["api.example"]
    assert there.connected == ["127.0.0.1"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_body(method: str) -> None:
    there = net(zone())
    async with serve(says(answer(status="204 No Content"))) as server:
        url = f"http://api.example:{server.port}/"
        given = {"body": "ü\r\nX: y".encode(), "content_type": "text/plain; charset=utf-8"}
        assert await there.fetch(url, method=method, **given) == {"status": 204}
    (heard,) = server.heard
    assert (heard.method, heard.body) == (method, given["body"])
    assert heard.get("Content-Type") == ["text/plain; charset=utf-8"]
    assert heard.get("Content-Length") == [str(len(given["body"]))]
    assert heard.get("X") == []


async def test_a_body_that_is_too_long_is_not_sent() -> None:
    there = net(zone(), max_request=10)
    words = await refused(there, "http://api.example/", method="POST", body=b"x" * 11)
    assert words == "the body is longer than 10 bytes"
    assert there.names.asked == []


async def test_connections_and_cookies_are_not_kept() -> None:
    there = net(zone())
    kept = answer(b"x", content_type="text/plain", set_cookie="a=b", connection="keep-alive")
    async with serve(says(kept)) as server:
        for _ in range(2):
            await there.fetch(f"http://api.example:{server.port}/")
    assert server.connections == 2
    assert [heard.get("Cookie") for heard in server.heard] == [[], []]
    assert there.names.asked == ["api.example"] * 2


async def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.example login me password hush\n")
    netrc.chmod(0o600)
    for name, value in {"http_proxy": "http://127.0.0.9:1", "NETRC": str(netrc)}.items():
        monkeypatch.setenv(name, value)
    there = net(zone())
    async with serve(says(answer(b"x"))) as server:
        await there.fetch(f"http://api.example:{server.port}/")
    assert server.heard[0].get("Authorization") == []
    assert there.connected == ["127.0.0.1"]


# -- addresses --------

PRIVATE = [
    *(
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
    ),
    *("::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "ff02::1"),
    *(
        "224.0.0.1",
        "255.255.255.255",
        "192.168.0.1",
        "172.16.0.1",
        "198.18.0.1",
        "203.0.113.1",
        "127.1",
        "junk",
    ),
    *("0x7f.0.0.1", "0177.0.0.1", "2130706433", ""),
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_names_that_lead_inside(address: str) -> None:
    there = net({"h.example": [[address]]}, networks=[])
    for scheme in ("http", "https"):
        words = await refused(there, f"{scheme}://h.example/")
        assert words == "the server's name leads to an address that may not be contacted"
    assert there.connected == []


@pytest.mark.parametrize("private", ["10.0.0.1", "::1", "::ffff:10.0.0.1"])
async def test_one_bad_address_among_good_ones(private: str) -> None:
    for found in (["93.184.216.34", private], [private, "93.184.216.34"], ["127.0.0.1", private]):
        there = net({"h.example": [found]})
        assert "may not be contacted" in await refused(there, "http://h.example/")
        assert there.connected == []


async def test_the_first_answer_is_the_one_that_counts() -> None:
    """Rebinding: what the name leads to later changes nothing for this hop, and is checked for the next."""
    there = net({"api.example": [["127.0.0.1"], ["10.0.0.1"]]})
    async with serve(routes(a=answer(b"x"), b=answer(status="302 Found", location="/a"))) as server:
        base = f"http://api.example:{server.port}"
        assert (await there.fetch(f"{base}/a"))["status"] == 200
        assert there.names.asked == ["api.example"]
        assert "may not be contacted" in await refused(there, f"{base}/a")

        there.names.zone["api.example"] = [["127.0.0.1"], ["10.0.0.1"]]
        assert "may not be contacted" in await refused(there, f"{base}/b")
    assert server.connections == 2
    assert there.connected == ["127.0.0.1"] * 2


async def test_every_good_address_is_tried() -> None:
    there = net({"h.example": [["127.0.0.3", "127.0.0.1"]]})
    async with serve(says(answer(b"x"))) as server:
        assert (await there.fetch(f"http://h.example:{server.port}/"))["status"] == 200
    assert there.connected == ["127.0.0.3", "127.0.0.1"]


async def test_an_address_that_is_listed_as_such() -> None:
    there = net({}, networks=[])
    async with serve(says(answer(b"x"))) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert (await there.fetch(f"{base}/x", f"{base}/x"))["status"] == 200
        assert await refused(there, f"{base}/y", f"{base}/x") == "this address is not allowed"
        assert (
            await refused(there, f"http://127.0.0.2:{server.port}/x", base) == "this address is not allowed"
        )
    assert there.connected == ["127.0.0.1"]
    assert there.names.asked == []


async def test_names_that_lead_nowhere() -> None:
    there = net({"empty.example": [[]]})
    assert await refused(there, "http://no.example/") == "the server's name cannot be found"
    assert await refused(there, "http://empty.example/") == "the server's name cannot be found"


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        there = net(zone())
        words = await refused(there, f"http://api.example:{taken.getsockname()[1]}/")
    assert words == "the server cannot be reached"


# -- redirects --------


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://evil.example/", "not allowed"),
        ("//evil.example/in/x", "not allowed"),
        ("http://api.example:1/in/x", "not allowed"),
        ("http://other.example:{port}/in/x", "not allowed"),
        ("/out", "not allowed"),
        ("/in/../out", "not allowed"),
        ("/inside", "not allowed"),
        ("../out", "not allowed"),
        ("https://api.example:{port}/in/x", "not allowed"),
        ("http://127.0.0.1:{port}/in/x", "not allowed"),
        ("http://169.254.169.254/latest/meta-data/", "not allowed"),
        ("http://[::ffff:169.254.169.254]/", "not allowed"),
        ("http://2130706433:{port}/in/x", "no proper URL"),
        ("http://0x7f.1:{port}/in/x", "no proper URL"),
        ("http://u:p@api.example:{port}/in/x", "no proper URL"),
        ("file:///etc/passwd", "no proper URL"),
        ("/in/%2e%2e/out", "no proper URL"),
        ("/in/..%2fout", "no proper URL"),
        ("/in\\..\\out", "no proper URL"),
        ("/in/a b", "no proper URL"),
        ("/in/" + "x" * 3000, "no proper URL"),
        ("/in/\xff", "no proper URL"),
    ],
)
async def test_redirects_that_lead_out(location: str, why: str) -> None:
    there = net(zone())

    async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status="302 Found", location=location.format(port=server.port)))

    async with serve(peer) as server:
        base = f"http://api.example:{server.port}/in"
        words = await refused(there, f"{base}/a", base)
    assert words.startswith("the server redirects to")
    assert why in words
    assert (server.connections, there.connected) == (1, ["127.0.0.1"])
    assert there.names.asked == ["api.example"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        *((status, "GET", "GET") for status in (301, 302, 303, 307, 308)),
        *((status, "HEAD", "HEAD") for status in (301, 302, 303, 307, 308)),
        *((status, "POST", "GET") for status in (301, 302, 303)),
        *((status, "POST", "POST") for status in (307, 308)),
        *((status, "PUT", "PUT") for status in (301, 302, 307, 308)),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
    ],
)
async def test_methods_after_a_redirect(status: int, method: str, then: str) -> None:
    there = net(zone())
    body = b"data" if method in {"POST", "PUT"} else None
    moved = answer(status=f"{status} Moved", location="b?x")
    async with serve(routes(a=moved, b=answer(b"" if then == "HEAD" else b"there"))) as server:
        url = f"http://api.example:{server.port}/a"
        result = await there.fetch(url, method=method, body=body, content_type="text/plain" if body else "")
    assert result == ({"status": 200} if then == "HEAD" else {"status": 200, "body": "there"})
    first, second = server.heard
    assert (first.method, second.method, second.target) == (method, then, "/b?x")
    kept = body if then == method else None
    assert second.body == (kept or b"")
    assert second.get("Content-Type") == (["text/plain"] if kept else [])


async def test_a_loop_ends() -> None:
    there = net(zone(), max_redirects=3)
    async with serve(says(answer(status="302 Found", location="/"))) as server:
        assert await refused(there, f"http://api.example:{server.port}/") == "the server redirects too often"
    assert server.connections == 4


@pytest.mark.parametrize("status", [300, 302, 304, 305, 399])
async def test_what_is_no_redirect_is_an_answer(status: int) -> None:
    fields = {} if status == 302 else {"location": "/x"}
    there = net(zone())
    async with serve(says(answer(status=f"{status} Odd", **fields))) as server:
        assert (await there.fetch(f"http://api.example:{server.port}/"))["status"] == status
    assert server.connections == 1


# -- credentials --------


async def test_credentials_go_to_their_origin_and_no_further() -> None:
    there = net(zone())
    async with serve(says(answer(b"x")), host="127.0.0.2") as other:

        async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(status="307 Moved", location=f"http://other.example:{other.port}/"))

        async with serve(peer) as server:
            here, away = f"http://api.example:{server.port}", f"http://other.example:{other.port}"
            own = credential(away, "key-of-the-other", "X-Key")
            for given in ([credential(here)], [credential(here), own]):
                assert (await there.fetch(f"{here}/", here, away, credentials=given))["status"] == 200
    assert [heard.get("Authorization") for heard in server.heard] == [[SECRET], [SECRET]]
    assert [heard.get("X-Key") for heard in server.heard] == [[], []]
    assert [heard.get("Authorization") for heard in other.heard] == [[], []]
    assert [heard.get("X-Key") for heard in other.heard] == [[], ["key-of-the-other"]]


async def test_another_port_is_another_origin() -> None:
    there = net(zone())
    async with serve(says(answer(b"x"))) as server:
        given = [credential(f"http://api.example:{server.port + 1}"), credential("http://api.example")]
        await there.fetch(f"http://api.example:{server.port}/", credentials=given)
    assert server.heard[0].get("Authorization") == []


async def test_credentials_over_plain_http_stay_inside() -> None:
    """Unencrypted only to listed networks: a public address, allowed as such, does not get them."""
    there = net({"api.example": [["93.184.216.34"]]})
    words = await refused(there, "http://api.example/", credentials=[credential("http://api.example")])
    assert words == "this address needs credentials, which may not go there unencrypted"
    assert there.connected == []
    alone = net({}, networks=[])
    async with serve(says(answer(b"x"))) as server:
        origin = f"http://127.0.0.1:{server.port}"
        await alone.fetch(f"{origin}/", credentials=[credential(origin)])
    assert server.heard[0].get("Authorization") == [SECRET]


async def test_an_echo_does_not_tell_the_secret() -> None:
    there = net(zone())
    echo = json.dumps({"you": SECRET, "token": "s3cr3t-of-orders"}).replace("3", "\\u0033").encode()
    async with serve(says(answer(echo, content_type="application/json", status="401 No"))) as server:
        origin = f"http://api.example:{server.port}"
        result = await there.fetch(
            f"{origin}/", credentials=[credential(origin), credential(origin, "x y", "X")]
        )
    assert result == {"status": 401, "body": {"you": "[secret]", "token": "[secret]"}}


# -- answers --------


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 409, 418, 500, 503, 599])
async def test_every_status_is_a_result(status: int) -> None:
    there = net(zone())
    reply = answer(b'{"why": "so"}', status=f"{status} So", content_type="application/problem+json")
    async with serve(says(reply)) as server:
        result = await there.fetch(f"http://api.example:{server.port}/")
    assert result == {"status": status, "body": {"why": "so"}}


@pytest.mark.parametrize(
    ("raw", "method", "result"),
    [
        (answer(status="204 None", content_type="image/png"), "GET", {"status": 204}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE", {"status": 204}),
        (
            HEAD + b"Content-Length: 99999999\r\nContent-Encoding: br\r\n\r\n",
            "HEAD",
            {"status": 200},
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "GET", {"status": 200, "body": "until the end"}),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 7 + answer(b"x"),
            "GET",
            {"status": 200, "body": "x"},
        ),
        (
            answer(b"\x89PNG\r\n", content_type="image/png"),
            "GET",
            {"status": 200, "note": "the body is image/png of 6 bytes, which is not text"},
        ),
        (
            HEAD + b"Content-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET",
            {"status": 200, "note": "the body is a/b of unknown length, which is not text"},
        ),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
            "GET",
            {"status": 200, "body": "abcde"},
        ),
        (
            answer(gzip.compress(b'{"a": 1}'), content_type="application/json", content_encoding="gzip"),
            "GET",
            {"status": 200, "body": {"a": 1}},
        ),
        (answer(zlib.compress(b"hi"), content_encoding="deflate"), "GET", {"status": 200, "body": "hi"}),
        (
            answer("grüß".encode("latin-1"), content_type="text/plain;charset=latin1"),
            "GET",
            {"status": 200, "body": "grüß"},
        ),
    ],
)
async def test_answers(raw: bytes, method: str, result: dict[str, Any]) -> None:
    there = net(zone())
    async with serve(says(raw)) as server:
        assert await there.fetch(f"http://api.example:{server.port}/", method=method) == result


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "broke off"),
        (HEAD + b"Content-Le", "broke off"),
        (HEAD + b"Content-Length: 10\r\n\r\nabc", "broke off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n", "cannot be read|broke off"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 8 + answer(b"x"), "broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be read"),
        (HEAD + b"Content-Length: -5\r\n\r\n", "cannot be read"),
        (HEAD + b"Content-Length: 18446744073709551616\r\n\r\nab", "cannot be read"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "cannot be read"),
        (b"\x16\x03\x01\x00\xa5\x01" * 100, "cannot be read"),
        (answer(b"x", content_encoding="br"), "cannot be read"),
        (answer(b"plain", content_encoding="gzip"), "cannot be read"),
        (answer(gzip.compress(b"hello")[:-3], content_encoding="gzip"), "cannot be read"),
        (
            HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n",
            "cannot be read",
        ),
        (HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 " + b"y" * 20_000 + b"\r\n\r\n", "cannot be read"),
        (HEAD + b"x" * 20_000 + b": y\r\n\r\n", "cannot be read"),
    ],
)
async def test_what_is_no_answer(raw: bytes, words: str) -> None:
    there = net(zone())
    async with serve(says(raw)) as server:
        said = await refused(there, f"http://api.example:{server.port}/")
    assert any(word in said for word in words.split("|")), said


# -- floods --------

CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (HEAD + b"Content-Type: text/plain\r\n\r\n", b"x" * 65_536),
        (HEAD + b"Content-Length: 18446744073709551614\r\n\r\n", b"x" * 65_536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
    ],
    ids=["until the end", "huge length", "chunked"],
)
async def test_an_endless_body_is_cut(head: bytes, chunk: bytes) -> None:
    there, sent = net(zone(), max_response=100_000), []
    async with serve(endless(head, chunk, sent)) as server:
        result = await there.fetch(f"http://api.example:{server.port}/")
        async with asyncio.timeout(LONG):
            await server.gone.wait()
    assert (result["status"], len(result["body"])) == (200, 100_000)
    assert result["note"] == "cut: only the first 100000 bytes were read"
    assert sum(sent) < 32 << 20, "the server was stopped; what it sent more is in the system's buffers"


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (HEAD, b"X-Endless: 0123456789\r\n" * 100),
        (HEAD + b"X: ", b"y" * 65_536),
        (b"HTTP/1.1 200 ", b"y" * 65_536),
        (b"", b"\x00" * 65_536),
        (HEAD, b"X-%08d" % 1 * 8192),
    ],
    ids=["fields", "value", "reason", "zeros", "name"],
)
async def test_endless_headers_are_refused(head: bytes, chunk: bytes) -> None:
    there, sent = net(zone()), []
    async with serve(endless(head, chunk, sent)) as server:
        assert "cannot be read" in await refused(there, f"http://api.example:{server.port}/")
        async with asyncio.timeout(LONG):
            await server.gone.wait()
    assert sum(sent) < 32 << 20


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Endless: 0123456789\r\n" * 1000),
    ],
    ids=["chunk extension", "trailer"],
)
async def test_what_never_comes_to_the_point_ends_in_time_and_fills_no_memory(
    head: bytes, chunk: bytes
) -> None:
    there, sent = net(zone(), timeout=0.5), []
    async with serve(endless(head, chunk, sent)) as server:
        tracemalloc.start()
        try:
            words = await refused(there, f"http://api.example:{server.port}/")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        async with asyncio.timeout(LONG):
            await server.gone.wait()
    assert "did not answer within 0.5 seconds" in words or "cannot be read" in words or "broke off" in words
    assert peak < 16 << 20


async def test_a_compressed_bomb_is_cut() -> None:
    there = net(zone())
    async with serve(says(answer(bomb(), content_type="text/plain", content_encoding="gzip"))) as server:
        tracemalloc.start()
        try:
            result = await there.fetch(f"http://api.example:{server.port}/")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert result["body"] == "\0" * 65_536
    assert "cut" in result["note"]
    assert peak < 16 << 20


# -- time --------


@pytest.mark.parametrize(
    "peer",
    [
        silent,
        dripping(HEAD, b"A: b\r\n"),
        dripping(HEAD + b"X: ", b"y"),
        dripping(HEAD + b"Content-Length: 1000\r\n\r\n", b"z"),
        dripping(b"", b"\r\n"),
    ],
    ids=["silent", "slow fields", "slow value", "slow body", "slow blank lines"],
)
async def test_one_limit_for_all_of_it(peer: Any) -> None:
    there = net(zone(), timeout=0.3)
    async with serve(peer) as server:
        assert await refused(there, f"http://api.example:{server.port}/") == (
            "the server did not answer within 0.3 seconds"
        )
        async with asyncio.timeout(LONG):
            await server.gone.wait()


async def test_redirects_share_the_limit() -> None:
    """Every hop is quick; the sum is not."""
    there = net(zone(), timeout=0.3, max_redirects=10)

    async def peer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        if not writer.is_closing():
            writer.write(answer(status="302 Found", location="/"))

    async with serve(peer) as server:
        words = await refused(there, f"http://api.example:{server.port}/")
    assert "did not answer within 0.3 seconds" in words
    assert server.connections <= 2


async def test_a_slow_name_server_is_in_the_limit_too() -> None:
    async def never(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    there = net(zone())
    there.client = HttpClient(HttpSettings(timeout=60), resolve=never)
    assert "within 0.05 seconds" in await refused(there, "http://api.example/", timeout=0.05)


async def test_cancelling_closes_the_connection() -> None:
    there = net(zone())
    async with serve(silent) as server:
        task = asyncio.create_task(there.fetch(f"http://api.example:{server.port}/"))
        async with asyncio.timeout(LONG):
            await server.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.gone.wait()


# -- TLS --------


async def test_tls(tmp_path: Path) -> None:
    good, bad = certificate(tmp_path, "api.example"), certificate(tmp_path, "evil.example")
    pinned = net(zone(), ca_file=good)
    async with serve(says(answer(b"x")), tls=server_tls(good)) as server:
        url = f"https://api.example:{server.port}/"
        assert await pinned.fetch(url) == {"status": 200, "body": "x"}
        elsewhere = {"x.example": [["127.0.0.1"]]}
        for there, where in (
            (net(zone(), ca_file=None), url),  # not known to the system
            (net(elsewhere, ca_file=good), url.replace("api.", "x.")),  # not for this name
        ):
            words = await refused(there, where, credentials=[credential(where[:-1])])
            assert words == "the server's certificate or encryption cannot be trusted"
    async with serve(says(answer(b"x")), tls=server_tls(bad)) as other:
        words = await refused(pinned, f"https://api.example:{other.port}/")
        assert words == "the server's certificate or encryption cannot be trusted"
    assert len(server.heard) == 1, "no request, no credential went to the others"
    assert other.heard == []


async def test_tls_of_an_address(tmp_path: Path) -> None:
    good = certificate(tmp_path, "127.0.0.1")
    there = net({}, ca_file=good, networks=[])
    async with serve(says(answer(b"x")), tls=server_tls(good)) as server:
        assert await there.fetch(f"https://127.0.0.1:{server.port}/") == {"status": 200, "body": "x"}


async def test_no_tls_where_there_should_be() -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x"))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        words = await refused(net(zone()), f"https://api.example:{server.sockets[0].getsockname()[1]}/")
    assert words == "the server's certificate or encryption cannot be trusted"


async def test_https_never_becomes_http(tmp_path: Path) -> None:
    good = certificate(tmp_path, "api.example")
    there = net(zone(), ca_file=good)
    async with serve(says(answer(b"plain"))) as plain:
        target = f"http://api.example:{plain.port}"
        moved = answer(status="301 Moved", location=f"{target}/")
        async with serve(says(moved), tls=server_tls(good)) as server:
            url = f"https://api.example:{server.port}/"
            words = await refused(there, url, url, target)
        assert words == "the server redirects to an unencrypted address, which is not allowed"
    assert plain.connections == 0


async def test_http_may_become_https(tmp_path: Path) -> None:
    good = certificate(tmp_path, "api.example")
    there = net(zone(), ca_file=good)
    async with serve(says(answer(b"safe")), tls=server_tls(good)) as safe:
        target = f"https://api.example:{safe.port}"
        async with serve(says(answer(status="301 Moved", location=f"{target}/"))) as server:
            origin = f"http://api.example:{server.port}"
            assert await there.fetch(f"{origin}/", origin, target) == {"status": 200, "body": "safe"}


def test_a_ca_file_without_certificates(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    with pytest.raises(ConfigError, match="ca_file"):
        HttpClient(HttpSettings(ca_file=empty))


# -- logs --------


async def test_logs_name_no_query_body_header_or_path() -> None:
    there = net(zone())
    async with serve(says(answer(b"private", content_type="text/plain"))) as server:
        origin = f"http://api.example:{server.port}"
        with logged() as lines:
            given = {"credentials": [credential(origin)], "body": b"hush", "content_type": "text/plain"}
            await there.fetch(f"{origin}/customer-4711?pin=1234", method="POST", **given)
            await refused(there, f"{origin}/customer-4711?pin=1234", "http://else.example/")
    asked, answered, _, failed = lines
    assert {line["log_level"] for line in lines} == {"debug"}
    assert asked == {"event": "> http", "method": "POST", "url": "label", "log_level": "debug"}
    assert (answered["event"], answered["status"], answered["bytes"]) == ("< http", 200, 7)
    assert answered["ms"] >= 0
    assert (failed["event"], failed["why"]) == ("! http", "this address is not allowed")
    for private in ("4711", "1234", "hush", "private", "s3cr3t"):
        assert private not in str(lines)

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from http_support import LONG, answer, endless, net, says, serve, zone

from ari_gemini.errors import ToolError
from ari_gemini.tools.http_wire import MAX_MESSAGES, PIECE, BoundedHandler
from ari_gemini.tools.resolver import PinnedResolver

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("flood", [INTERIM, answer(b"x")], ids=["interim", "real"])
async def test_a_flood_of_answers_fills_no_memory(flood: bytes) -> None:
    there, sent = net(zone()), []
    async with serve(endless(INTERIM, flood * (1_000_000 // len(flood)), sent)) as server:
        tracemalloc.start()
        try:
            if flood == INTERIM:
                with pytest.raises(ToolError, match="the server broke off its answer"):
                    await there.fetch(f"http://api.example:{server.port}/")
            else:
                assert (await there.fetch(f"http://api.example:{server.port}/"))["body"] == "x"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        async with asyncio.timeout(LONG):
            await server.gone.wait()
    assert peak < 8 << 20
    assert sum(sent) < 32 << 20


async def test_what_is_parsed_after_too_many_answers() -> None:
    """One read's worth is parsed in pieces, and no further than the piece that is too much."""
    handler = BoundedHandler(asyncio.get_running_loop())
    handler.set_response_params(read_until_eof=True, auto_decompress=False)
    pieces: list[int] = []
    parser = handler._parser

    class Counted:
        def feed_data(self, data: bytes) -> Any:
            pieces.append(len(data))
            return parser.feed_data(data)  # type: ignore[union-attr]

    handler._parser = Counted()  # type: ignore[assignment]
    handler.data_received(INTERIM * 10_000)
    assert pieces == [PIECE]
    assert len(handler) == MAX_MESSAGES
    assert str(handler.exception()) == "too many interim answers"


async def test_the_socket_itself_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should something between check and connection choose another address, no socket is made."""

    async def elsewhere(_self: object, host: str, port: int = 0, family: int = 0) -> list[Any]:
        made = {"hostname": host, "host": "127.0.0.7", "port": port, "family": family, "proto": 0, "flags": 0}
        return [made]

    monkeypatch.setattr(PinnedResolver, "resolve", elsewhere)
    there = net(zone())
    async with serve(says(answer(b"x")), host="127.0.0.7") as server:
        with pytest.raises(ToolError, match="the server cannot be reached"):
            await there.fetch(f"http://api.example:{server.port}/")
    assert (there.connected, server.connections) == ([], 0)

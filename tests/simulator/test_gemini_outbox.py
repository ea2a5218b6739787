from __future__ import annotations

from typing import Any

from ari_gemini.simulator import gemini_outbox as subject
from ari_gemini.simulator.gemini_live import GeminiSimulator


async def test_what_was_sent_before_a_close_arrives_before_it(dial: Any) -> None:
    async with GeminiSimulator("greeting", speed=20) as sim, dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()
        session.go_away(60)
        session.disconnect(1008, "The operation was aborted.")
        assert await client.end() == (1008, "The operation was aborted.")
        assert client.messages[-1] == {"goAway": {"timeLeft": "60s"}}


async def test_a_client_that_does_not_read_is_cut_off(dial: Any) -> None:
    async with GeminiSimulator(speed=20) as sim, dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()
        for _ in range(subject.MAX_FRAMES + 1):
            session._outbox.send({})
        assert session.record.count("overrun") == 1
        assert await session.wait_closed() == (1006, "")
        assert await client.end() == (1006, "")


async def test_frames_leave_in_order_as_they_are(dial: Any) -> None:
    async with GeminiSimulator(speed=20) as sim, dial(sim) as client:
        await client.setup()
        await client.until("sessionResumptionUpdate")
        outbox = (await sim.wait_session())._outbox
        outbox.send({"goAway": {"timeLeft": "5s"}})
        outbox.send_raw("text")
        outbox.send_raw(b"\xff")
        outbox.close(1000, "bye")
        frames = [await client.socket.recv() for _ in range(3)]
        assert frames == [b'{"goAway":{"timeLeft":"5s"}}', "text", b"\xff"]
        assert await client.end() == (1000, "bye")

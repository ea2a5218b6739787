from __future__ import annotations

from typing import Any

import pytest

from ari_gemini.simulator.gemini_closes import CLOSES
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.scenario import Scenario, ScriptTurn

QUICK = Scenario(
    setup_delay=0.0, think_time=0.0, pace=(5.0, 5.0), turns=(ScriptTurn(on="text", say=("long_story",)),)
)


@pytest.mark.parametrize("name", CLOSES)
async def test_each_close_comes_in_mid_sentence_with_its_code_and_words(name: str, dial: Any) -> None:
    code, reason = CLOSES[name]
    async with GeminiSimulator(QUICK, speed=4.0) as sim, dial(sim) as client:
        await client.setup()
        await client.send({"realtimeInput": {"text": "Tell me."}})
        await client.until("audio")
        session = await sim.wait_session()
        session.disconnect(code, reason)
        assert await client.end() == (code, reason[:123])
        assert await session.wait_closed() == (code, reason[:123])
        (said,) = session.said
        assert said.interrupted
        assert 0 < len(said.pcm) < 24000 * 2 * 12


def test_one_reason_is_too_long_for_a_close_frame() -> None:
    assert [name for name, close in CLOSES.items() if len(close.reason) > 123] == ["goAway ignored"]
    assert CLOSES["goAway ignored"].reason[:123].endswith("once the session durat")

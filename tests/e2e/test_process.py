"""The commands as an operator runs them, ``ari-gemini serve`` and ``check``, beside the real Asterisk."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bot import WAY_A, WAY_B
from harness.asterisk import Asterisk
from harness.command import Command
from harness.phone import PhoneMaker
from harness.tap import Way

from ari_gemini.simulator.gemini_live import GeminiSimulator

pytestmark = pytest.mark.asterisk


async def test_sigterm_waits_for_the_caller_and_sends_others_on(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    alice, bob, carol = await phone("1001"), await phone("1002"), await phone("1003")
    async with AsyncExitStack() as stack:
        gemini = await stack.enter_async_context(GeminiSimulator("two_turns"))
        command = Command(tmp_path, asterisk, gemini, more="[drain]\ntimeout = 3600")
        process = await stack.enter_async_context(command.serving())
        await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", command.media)
        await alice.dial(WAY_A)
        await alice.established()
        session = await gemini.wait_session()
        await session.wait_for("turn_complete")
        process.send_signal(signal.SIGTERM)
        await process.says(b"= draining")
        await bob.dial(WAY_A)
        await carol.dial(WAY_B)
        # A has not answered, so the provider can route him elsewhere; B has, and hears the congestion tone
        assert "503" in (await bob.closed()).param
        await carol.tap.wait_loud(Way.TO_PHONE)
        await carol.hang_up()
        await carol.closed()
        session.say("go_on")
        await session.wait_for("turn_complete", count=2)
        assert gemini.connections == 1
        await alice.hang_up()
        await alice.closed()
        assert await process.end() == 0
        assert b"cause=draining" in process.said
        assert b"cause=shutdown" not in process.said
    assert any("draining" in line for line in asterisk.log())
    await asterisk.empty()


async def test_sigterm_sends_the_callers_on_and_ends_well(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    alice = await phone("1001")
    async with GeminiSimulator("two_turns") as gemini:
        async with Command(tmp_path, asterisk, gemini, more="[drain]\ntimeout = 0").serving() as process:
            await alice.dial(WAY_A)
            await alice.established()
            await (await gemini.wait_session()).wait_for("turn_start")
            await alice.tap.wait_loud(Way.TO_PHONE)
            process.send_signal(signal.SIGTERM)
            assert await process.end() == 0
            assert b"cause=shutdown" in process.said
            assert asterisk.password.encode() not in process.said
            assert b"a-key" not in process.said
        await alice.tap.wait_loud(Way.TO_PHONE)  # the fallback's congestion tone
        await alice.hang_up()
        await alice.closed()
    await asterisk.empty()


async def test_check_finds_nothing_wrong_and_disturbs_no_call(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    alice = await phone("1001")
    async with GeminiSimulator("two_turns") as gemini:
        command = Command(tmp_path, asterisk, gemini)
        code, said = await command.run("check", "--before-start")
        assert (code, said.splitlines()[-1]) == (0, "all is well"), said
        async with command.serving():
            await alice.dial(WAY_A)
            await alice.established()
            code, said = await command.run("check")
            assert (code, said.splitlines()[-1]) == (0, "all is well"), said
            assert len(await asterisk.bridges()) == 1
            await alice.tap.wait(lambda packet: packet.way is Way.TO_PHONE)
            await alice.hang_up()
            await alice.closed()
            await asterisk.empty()


async def test_check_says_what_is_wrong(asterisk: Asterisk, tmp_path: Path) -> None:
    async with GeminiSimulator("two_turns") as gemini:
        command = Command(tmp_path, asterisk, gemini)
        code, said = await command.run("check")
        assert code == 1
        assert "FAIL  nobody is connected for Stasis(ari-gemini)" in said
        code, said = await command.run("check", environment={"ARI_PASSWORD": "wrong"})
        assert code == 1
        assert f"refuses user '{asterisk.username}'" in said
        nobody = {"ARI_GEMINI__AUDIOSOCKET__ADVERTISE": f"{asterisk.address}:9"}
        code, said = await command.run("check", "--before-start", environment=nobody)
        assert code == 1
        assert f"cannot connect to audiosocket.advertise {asterisk.address}:9" in said
    await asterisk.empty()

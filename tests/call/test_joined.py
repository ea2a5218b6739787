"""Two who talk without the model, and how they part."""

from __future__ import annotations

import pytest
import structlog

from ari_gemini.call import cleanup
from ari_gemini.call.joined import Joined
from ari_gemini.errors import AriNotFound, AriRejected, AriTimeout, AriUnavailable

PARTY = "ari-gemini-party-1-a"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))


@pytest.mark.parametrize(
    ("gone", "hung_up"), [({"a"}, [PARTY]), ({PARTY}, ["a"]), ({"a", PARTY}, []), (set(), ["a", PARTY])]
)
async def test_who_stays_is_hung_up_and_the_bridge_destroyed(ari, gone: set[str], hung_up: list[str]) -> None:
    pair = Joined(ari, "a", PARTY)
    ari.on["destroy"] = lambda: states.append(pair.parting)
    states: list[bool] = []
    assert await pair.part(gone) is True
    assert ari.about("hangup") == hung_up
    assert ari.about("destroy") == ["ari-gemini-bridge-a"]
    assert (states, pair.parting) == ([True], False)


async def test_who_is_gone_by_himself_is_no_trouble(ari) -> None:
    for name in ("hangup", "destroy"):
        ari.answers[name] = [AriNotFound("404", 404)]
    assert await Joined(ari, "a", PARTY).part({"a"}) is True


async def test_a_stall_is_outlived(ari) -> None:
    ari.answers["hangup"] = [AriTimeout("slow"), AriUnavailable("gone"), None]
    assert await Joined(ari, "a", PARTY).part({"a"}) is True


@pytest.mark.parametrize(("error", "times"), [(AriTimeout("slow"), 3), (AriRejected("no", 500), 1)])
async def test_what_cannot_be_done_is_said(ari, error, times: int) -> None:
    ari.answers["hangup"] = [error]
    pair = Joined(ari, "a", PARTY)
    with structlog.testing.capture_logs() as logs:
        assert await pair.part({"a"}) is False
    assert ari.about("hangup") == [PARTY] * times
    assert [line["event"] for line in logs] == ["stasis.not_parted"]
    assert not pair.parting, "it may be tried again"

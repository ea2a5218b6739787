"""The typed requests, whatever carries them."""

from __future__ import annotations

from uuid import UUID

import pytest

from ari_gemini.ari.client import AriClient
from ari_gemini.ari.link import AriLink
from ari_gemini.ari.requests import Requests
from ari_gemini.errors import AriRejected


class Notes(Requests):
    """Answers what it is told to and notes what it was asked."""

    app, request_timeout, connected = "app", 1.0, True

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple] = []

    async def request(self, resource: str, nickname: str, **params: str | int | None) -> object:
        self.asked.append((resource, nickname, params))
        return self.answer


async def test_external_media_is_audiosocket_over_tcp() -> None:
    requests = Notes({"id": "m"})
    media = await requests.external_media("m", "app", "host:1", UUID(int=7))
    assert media.id == "m"
    ((resource, nickname, params),) = requests.asked
    assert (resource, nickname) == ("channels", "externalMedia")
    assert params == {
        "channelId": "m",
        "app": "app",
        "external_host": "host:1",
        "encapsulation": "audiosocket",
        "transport": "tcp",
        "connection_type": "client",
        "format": "slin",
        "data": str(UUID(int=7)),
    }


async def test_the_time_to_ring_is_rounded_up() -> None:
    requests = Notes({"id": "p"})
    await requests.originate("PJSIP/1", channel_id="p", app="app", timeout=2.1)
    assert requests.asked[0][2]["timeout"] == 3


async def test_what_makes_no_sense_is_refused() -> None:
    for ask in (Notes("x").channels, Notes(None).asterisk_info, lambda: Notes([]).application("a")):
        with pytest.raises(AriRejected):
            await ask()
    assert await Notes([{"id": "b"}, 7]).bridges() != []


def test_both_carriers_offer_the_same() -> None:
    assert issubclass(AriClient, Requests)
    assert issubclass(AriLink, Requests)

"""The requests that calls make of Asterisk, whatever carries them there.

``AriClient`` carries them over HTTP, an ``AriLink`` over the WebSocket that Asterisk opened for one call.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar
from uuid import UUID

from ari_gemini.ari.events import (
    ApplicationInfo,
    AsteriskInfo,
    BridgeInfo,
    ChannelInfo,
    parse_application,
    parse_asterisk_info,
    parse_bridge,
    parse_channel,
)
from ari_gemini.errors import AriRejected

T = TypeVar("T")


class Requests(ABC):
    """Asks one Asterisk. Requests do not wait for one another on this side.

    Every one raises AriError: AriUnavailable without a connection, AriTimeout after ``request_timeout``, and
    by status as ``transport.status_error`` says. Cancelling one leaves open whether Asterisk acted.
    """

    @property
    @abstractmethod
    def app(self) -> str:
        """The Stasis application that whatever this service makes must enter, for its events to come here."""

    @property
    @abstractmethod
    def request_timeout(self) -> float:
        """How long one request may take, s."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """True while events flow."""

    @abstractmethod
    async def request(self, resource: str, nickname: str, **params: str | int | None) -> object:
        """Run an operation of Asterisk's API description; return the decoded JSON, None for an empty answer.

        Parameters that are None are left out. Raises AriError.
        """

    async def external_media(
        self,
        channel_id: str,
        app: str,
        external_host: str,
        data: UUID,
        format: str = "slin",  # noqa: A002  # ARI's own name
    ) -> ChannelInfo:
        """Make a channel that connects to ``external_host`` (HOST:PORT) over AudioSocket and enters ``app``.

        Asterisk dials during this request: whoever listens there must know ``data`` before. ``format``
        ``slin`` is 8 kHz, ``slin16`` 16 kHz, ``slin24`` 24 kHz. Raises AriRejected (status 500) when nobody
        listens.
        """
        raw = await self.request(
            "channels",
            "externalMedia",
            channelId=channel_id,
            app=app,
            external_host=external_host,
            encapsulation="audiosocket",
            transport="tcp",
            connection_type="client",
            format=format,
            data=str(data),
        )
        return understood(parse_channel(raw), "channels.externalMedia")

    async def originate(
        self,
        endpoint: str,
        *,
        channel_id: str,
        app: str,
        timeout: float,
        other_channel_id: str | None = None,
        caller_id: str | None = None,
        originator: str | None = None,
    ) -> ChannelInfo:
        """Call ``endpoint`` (``PJSIP/1002``) for ``timeout`` s, rounded up. When answered it enters ``app``.

        ``other_channel_id`` names the second half of a Local channel. Asterisk replies when it has begun to
        call; how that goes on is told to ``app`` as Dial and ChannelDestroyed. Raises AriRejected with
        status 500 when there is no such endpoint or it is not registered, 400 when the channel
        ``originator`` is gone; AriConflict when the id is taken.
        """
        raw = await self.request(
            "channels",
            "originate",
            endpoint=endpoint,
            app=app,
            channelId=channel_id,
            otherChannelId=other_channel_id,
            callerId=caller_id,
            originator=originator,
            timeout=math.ceil(timeout),
        )
        return understood(parse_channel(raw), "channels.originate")

    async def channels(self) -> list[ChannelInfo]:
        """Every channel Asterisk has, in our application or not."""
        return await self._listing("channels", parse_channel)

    async def bridges(self) -> list[BridgeInfo]:
        """Every bridge Asterisk has."""
        return await self._listing("bridges", parse_bridge)

    async def applications(self) -> list[ApplicationInfo]:
        """Every Stasis application Asterisk knows."""
        return await self._listing("applications", parse_application)

    async def application(self, name: str) -> ApplicationInfo:
        """One Stasis application. Raises AriNotFound when nobody is connected for it."""
        raw = await self.request("applications", "get", applicationName=name)
        return understood(parse_application(raw), "applications.get")

    async def asterisk_info(self) -> AsteriskInfo:
        """Version and identity of the Asterisk that answers."""
        return understood(parse_asterisk_info(await self.request("asterisk", "getInfo")), "asterisk.getInfo")

    async def modules(self) -> Mapping[str, str]:
        """Loaded modules, by name (``chan_audiosocket.so``), each with its status (``Running``)."""
        raw = await self.request("asterisk", "listModules")
        entries = raw if isinstance(raw, list) else []
        return {str(m.get("name", "")): str(m.get("status", "")) for m in entries if isinstance(m, Mapping)}

    async def _listing(self, resource: str, parse: Callable[[object], T | None]) -> list[T]:
        raw = await self.request(resource, "list")
        if not isinstance(raw, list):
            raise AriRejected(f"{resource}.list: not a list")
        return [item for item in map(parse, raw) if item is not None]


def understood(parsed: T | None, what: str) -> T:
    """``parsed``, or AriRejected when an answer could not be read."""
    if parsed is None:
        raise AriRejected(f"{what}: the answer makes no sense")
    return parsed

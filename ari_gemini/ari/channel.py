"""Handles for Asterisk's own nouns, Channel and Bridge, with the verbs ARI gives them.

A handle is a name, not a copy: it holds no state, may outlive what it names, and costs nothing to make.
Every verb raises AriError; ending what has already ended is success.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal
from uuid import UUID

from ari_gemini.ari.events import BridgeInfo, ChannelInfo, parse_bridge, parse_channel
from ari_gemini.ari.requests import Requests, understood
from ari_gemini.errors import AriNotFound

HangupReason = Literal[
    "normal",
    "busy",
    "congestion",
    "no_answer",
    "timeout",
    "rejected",
    "unallocated",
    "normal_unspecified",
    "number_incomplete",
    "codec_mismatch",
    "interworking",
    "failure",
    "answered_elsewhere",
]
"""What ``DELETE /channels/{channelId}`` takes, from ``rest-api/api-docs/channels.json``."""


class Channel:
    """The channel with this id. Verbs marked *Stasis* raise AriConflict when it is not in one."""

    __slots__ = ("_client", "id")

    def __init__(self, client: Requests, channel_id: str) -> None:
        self._client = client
        self.id = channel_id

    def __repr__(self) -> str:
        return f"Channel({self.id!r})"

    async def get(self) -> ChannelInfo:
        """What Asterisk says of it now. Raises AriNotFound when it is gone."""
        raw = await self._client.request("channels", "get", channelId=self.id)
        return understood(parse_channel(raw), "channels.get")

    async def ring(self) -> None:
        """Let the caller hear that it rings. *Stasis*.

        Before he is answered by signalling, then as a tone (``indications.conf``): not in a bridge, and where
        he enters one until Asterisk has other sound for him, which in a bridge of two SIP channels is never.
        Nothing that is asked meanwhile waits.
        """
        await self._client.request("channels", "ring", channelId=self.id)

    async def ring_stop(self) -> None:
        """Stop ringing. *Stasis*."""
        await self._client.request("channels", "ringStop", channelId=self.id)

    async def answer(self) -> None:
        """Answer; one that is up already stays so. *Stasis*."""
        await self._client.request("channels", "answer", channelId=self.id)

    async def hangup(self, reason: HangupReason | None = None) -> None:
        """Hang up, in Stasis or not; success when it is gone already. No reason means ``normal``."""
        with suppress(AriNotFound):
            await self._client.request("channels", "hangup", channelId=self.id, reason=reason)

    async def continue_in_dialplan(
        self,
        context: str | None = None,
        extension: str | None = None,
        priority: int | None = None,
        label: str | None = None,
    ) -> None:
        """Go on in the dialplan; at the next priority if nothing is named. *Stasis*.

        Asterisk answers before it is done: the channel has left when StasisEnd comes.
        """
        await self._client.request(
            "channels",
            "continueInDialplan",
            channelId=self.id,
            context=context,
            extension=extension,
            priority=priority,
            label=label,
        )

    async def get_variable(self, name: str) -> str | None:
        """A channel variable or function; None when the channel has no such variable.

        Raises AriNotFound when the channel is gone: Asterisk answers 404 to both, apart only in words.
        """
        try:
            raw = await self._client.request("channels", "getChannelVar", channelId=self.id, variable=name)
        except AriNotFound as error:
            if "variable" in str(error).rpartition("404")[2].lower():
                return None
            raise
        value = raw.get("value") if isinstance(raw, dict) else None
        return value if isinstance(value, str) else None

    async def set_variable(self, name: str, value: str) -> None:
        """Set a channel variable or function. *Stasis*."""
        await self._client.request("channels", "setChannelVar", channelId=self.id, variable=name, value=value)

    async def send_dtmf(
        self,
        digits: str,
        *,
        before_ms: int | None = None,
        between_ms: int | None = None,
        duration_ms: int | None = None,
        after_ms: int | None = None,
    ) -> None:
        """Play digits (``0-9 * # A-D``) to the caller as the channel's technology does it. *Stasis*.

        Returns when Asterisk has taken them, not when they are played. Until then (200 ms each, unless told
        otherwise, and never less than 100 ms) whatever else is asked of the channel waits, and may time out,
        except ``hangup``. While a digit sounds, other sound to the caller is lost.
        """
        await self._client.request(
            "channels",
            "sendDTMF",
            channelId=self.id,
            dtmf=digits,
            before=before_ms,
            between=between_ms,
            duration=duration_ms,
            after=after_ms,
        )


class Bridge:
    """The bridge with this id."""

    __slots__ = ("_client", "id")

    def __init__(self, client: Requests, bridge_id: str) -> None:
        self._client = client
        self.id = bridge_id

    def __repr__(self) -> str:
        return f"Bridge({self.id!r})"

    async def create(self, bridge_type: str = "mixing", name: str | None = None) -> BridgeInfo:
        """Make it. Raises AriConflict when one of this id is there already."""
        raw = await self._client.request(
            "bridges", "createWithId", bridgeId=self.id, type=bridge_type, name=name
        )
        return understood(parse_bridge(raw), "bridges.createWithId")

    async def get(self) -> BridgeInfo:
        """What Asterisk says of it now. Raises AriNotFound when it is gone."""
        raw = await self._client.request("bridges", "get", bridgeId=self.id)
        return understood(parse_bridge(raw), "bridges.get")

    async def add_channel(self, *channel_ids: str) -> None:
        """Put channels in, one of them out of another bridge if need be; answered or not.

        One that is in it already stays; of one that hangs up meanwhile Asterisk says nothing, its StasisEnd
        does. Raises AriNotFound when the bridge is gone, AriRejected when a
        channel is (status 400) or is not in Stasis (422): then none is put in, and Asterisk does not say
        which it was.
        """
        await self._client.request("bridges", "addChannel", bridgeId=self.id, channel=",".join(channel_ids))

    async def remove_channel(self, *channel_ids: str) -> None:
        """Take channels out.

        Raises AriNotFound when the bridge is gone, AriRejected when a channel is (status 400) or is not in it
        (422).
        """
        await self._client.request(
            "bridges", "removeChannel", bridgeId=self.id, channel=",".join(channel_ids)
        )

    async def destroy(self) -> None:
        """Destroy it; its channels stay, unbridged. Success when it is gone already."""
        with suppress(AriNotFound):
            await self._client.request("bridges", "destroy", bridgeId=self.id)


def find_audiosocket_channel(channels: Iterable[ChannelInfo], call_id: UUID) -> ChannelInfo | None:
    """The channel that is in the dialplan application ``AudioSocket(UUID,HOST:PORT)`` with this UUID.

    Asterisk hands the application's arguments on as they were written, so upper-case hex is possible.
    """
    wanted = str(call_id)
    for channel in channels:
        written, _, _ = channel.app_data.partition(",")
        if channel.app_name == "AudioSocket" and written.strip().lower() == wanted:
            return channel
    return None

"""Everything that can go wrong, drawn as one tree.

::

    AriGeminiError
    ├── ConfigError                     a file, a key or a secret is wrong: exit code 2, nothing was opened
    ├── AudioSocketError                the media peer broke the AudioSocket protocol
    ├── AriError                        Asterisk control
    │   ├── AriUnavailable              no connection, or it went away              retry BACKOFF
    │   ├── AriTimeout                  a request took longer than its limit        retry BACKOFF
    │   ├── AriDenied                   401/403: credentials                        retry NO
    │   ├── AriNotFound                 404: channel or bridge is gone              retry NO
    │   ├── AriConflict                 409/412: not in a state that allows it      retry NO
    │   └── AriRejected                 any other 4xx/5xx                           retry NO
    ├── SessionError                    the model's side; each says how a retry can work
    │   ├── SessionRefused              what we sent is wrong                       retry NO
    │   │   ├── KeyRefused
    │   │   ├── ModelRefused
    │   │   └── SetupRefused
    │   ├── HandleRefused               this resumption handle is dead              retry FRESH
    │   ├── SessionDropped              closed or lost in mid-session               retry RESUME
    │   ├── SessionUnavailable          cannot be had now (overload, network)       retry BACKOFF
    │   ├── QuotaExceeded               429, RESOURCE_EXHAUSTED                     retry LATER
    │   └── MalformedMessage            the peer sent what its protocol forbids     retry RESUME
    ├── StateError                      a call's state cannot be kept or read       retry NO
    │   └── StateUnavailable            its store cannot be had now                 retry BACKOFF
    ├── ToolError                       a tool cannot do what the model asked; the words are for the model
    └── CallEnded                       the one named ending of a call, with its cause
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import ClassVar


class Retry(Enum):
    """What a caller of the failed operation may do next."""

    NO = "no"
    """The same request fails again: something must be changed first."""
    BACKOFF = "backoff"
    """The same request may work after a pause."""
    RESUME = "resume"
    """Reconnect with the newest session handle."""
    FRESH = "fresh"
    """Drop the handle and start a session from nothing."""
    LATER = "later"
    """Not within this call: a quota is used up."""


class AriGeminiError(Exception):
    """Root of every error this package raises on purpose."""

    retry: ClassVar[Retry] = Retry.NO


class ConfigError(AriGeminiError):
    """Wrong configuration. The message is one line that names file and key."""


class AudioSocketError(AriGeminiError):
    """The AudioSocket peer sent what the protocol forbids."""


class AriError(AriGeminiError):
    """Asterisk control failed. ``status`` is the HTTP status, or None when there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AriUnavailable(AriError):
    """Asterisk cannot be reached."""

    retry = Retry.BACKOFF


class AriTimeout(AriError):
    """Asterisk did not answer a request within its limit."""

    retry = Retry.BACKOFF


class AriDenied(AriError):
    """Asterisk refused the credentials."""


class AriNotFound(AriError):
    """The channel, bridge or other resource does not exist (any more)."""


class AriConflict(AriError):
    """The resource is not in a state that allows the request."""


class AriRejected(AriError):
    """Asterisk answered with any other error status."""


class SessionError(AriGeminiError):
    """The model session failed. ``code`` is the WebSocket close code or HTTP status, if there was one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class SessionRefused(SessionError):
    """The provider refuses what was sent; trying again changes nothing."""


class KeyRefused(SessionRefused):
    """The API key or token is missing, wrong or expired."""


class ModelRefused(SessionRefused):
    """The model does not exist or does not do realtime sessions."""


class SetupRefused(SessionRefused):
    """A field of the session setup is refused."""


class HandleRefused(SessionError):
    """The resumption handle is unknown or expired."""

    retry = Retry.FRESH


class SessionDropped(SessionError):
    """The session's connection ended without our doing."""

    retry = Retry.RESUME


class SessionUnavailable(SessionError):
    """The provider cannot be reached or is overloaded."""

    retry = Retry.BACKOFF


class QuotaExceeded(SessionError):
    """The account's quota is used up."""

    retry = Retry.LATER


class MalformedMessage(SessionError):
    """The provider sent something that is not its own protocol."""

    retry = Retry.RESUME


class StateError(AriGeminiError):
    """The state of a call cannot be kept, or what was kept cannot be read."""


class StateUnavailable(StateError):
    """The store did not answer in time, or refuses to: gone, full, read-only."""

    retry = Retry.BACKOFF


class ToolError(AriGeminiError):
    """A tool cannot do what the model asked. The message goes to the model: say what it can do about it."""


class Cause(Enum):
    """Why a call ended; the value stands in logs and in the channel variable ``ARI_GEMINI_CAUSE``."""

    CALLER_HANGUP = "caller_hangup"
    """The channel left, whoever asked Asterisk for it."""
    MODEL_HANGUP = "model_hangup"
    """The model ended the call with ``hangup_call``."""
    TRANSFERRED = "transferred"
    """The model sent the caller on with ``transfer_call``."""
    MEDIA_LOST = "media_lost"
    """The AudioSocket ended while the channel was still there."""
    MEDIA_ERROR = "media_error"
    """The AudioSocket peer reported an error or broke the protocol."""
    MODEL_REFUSED = "model_refused"
    """The provider refused key, model or setup."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """No model session within ``setup_timeout``, or no quota."""
    MODEL_LOST = "model_lost"
    """The model session ended in mid-call."""
    MODEL_STALLED = "model_stalled"
    """The model gave no answer, though it was nudged and connected to anew."""
    NO_INPUT = "no_input"
    """The caller said nothing, though he was asked; the model said goodbye."""
    MAX_DURATION = "max_duration"
    """The longest time that the agent's calls may last was over."""
    MAX_SILENCE = "max_silence"
    """Neither caller nor model was heard for a long time."""
    ARI_FAILED = "ari_failed"
    """Asterisk refused or did not answer a step of the set-up."""
    UNKNOWN_CALL = "unknown_call"
    """An AudioSocket connection names a UUID that no channel of Asterisk has."""
    NO_AGENT = "no_agent"
    """The dialplan names an agent that the configuration does not have."""
    OVERLOADED = "overloaded"
    """``max_calls`` are up already."""
    DRAINING = "draining"
    """The service takes no new calls: it waits for those in progress and stops."""
    HANDED_OVER = "handed_over"
    """Another worker goes on with the call."""
    SHUTDOWN = "shutdown"
    """The service is being stopped."""
    INTERNAL_ERROR = "internal_error"
    """A defect of this service; the log holds the traceback."""


class CallEnded(AriGeminiError):
    """Raised inside a call's TaskGroup to end it; the cause is the call's outcome."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(f"{cause.value}: {detail}" if detail else cause.value)
        self.cause = cause
        self.detail = detail


def leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    """The errors in a group, those of groups inside it among them."""
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from leaves(error)
        else:
            yield error

"""Where each operation is, held against what the simulated Asterisk offers."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.ari.operations import ROUTES, locate
from ari_gemini.errors import AriRejected
from ari_gemini.simulator.asterisk_docs import OPERATIONS


def test_the_routes_are_those_of_the_description() -> None:
    described = {(o.resource, o.nickname): (o.method, o.path) for o in OPERATIONS}
    for name, (method, path) in ROUTES.items():
        assert described[name] == (method, f"/{path}")


def test_what_the_path_does_not_take_is_the_query() -> None:
    assert locate("channels", "hangup", {"channelId": "1.2", "reason": "busy"}) == (
        "DELETE",
        "channels/1.2?reason=busy",
    )
    assert locate("channels", "list", {}) == ("GET", "channels")


def test_the_slash_of_an_application_is_escaped() -> None:
    _, uri = locate("applications", "get", {"applicationName": "ari-gemini:PJSIP/x-00000001"})
    assert uri == "applications/ari-gemini%3APJSIP%2Fx-00000001"


@given(st.text(min_size=1), st.text())
def test_nothing_in_a_value_changes_the_request(name: str, value: str) -> None:
    try:
        name.encode(), value.encode()
    except UnicodeEncodeError:
        return
    method, uri = locate("channels", "setChannelVar", {"channelId": name, "variable": "V", "value": value})
    path, _, query = uri.partition("?")
    assert method == "POST"
    assert unquote(path) == f"channels/{name}/variable"
    assert path.count("/") == 2
    assert dict(parse_qsl(query, keep_blank_values=True)) == {"variable": "V", "value": value}


@pytest.mark.parametrize(
    ("resource", "nickname", "params"),
    [("channels", "mute", {}), ("channels", "answer", {}), ("channels", "answer", {"channelId": ""})],
)
def test_what_is_unknown_or_incomplete_is_refused(resource: str, nickname: str, params: dict) -> None:
    with pytest.raises(AriRejected):
        locate(resource, nickname, params)

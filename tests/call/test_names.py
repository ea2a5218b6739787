"""Names in Asterisk: each leads back to its caller, and none is taken for another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.call import names

CALLERS = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters=".-;/"), min_size=1)


@given(CALLERS, st.integers(1, 99))
def test_every_name_leads_back_to_its_caller(caller: str, number: int) -> None:
    assert names.caller_of_media(names.media_of(caller)) == caller
    assert names.caller_of_bridge(names.bridge_of(caller)) == caller
    assert names.caller_of_party(names.party_of(caller, number)) == caller


@given(CALLERS, st.integers(1, 99))
def test_no_name_is_taken_for_one_of_another_kind(caller: str, number: int) -> None:
    party = names.party_of(caller, number)
    assert names.caller_of_party(names.media_of(caller)) is None
    assert names.caller_of_media(party) is None
    assert names.caller_of_bridge(names.media_of(caller)) is None
    assert names.caller_of_party(names.far_half_of(party)) is None
    assert names.caller_of_media(names.far_half_of(party)) is None


@given(CALLERS)
def test_parties_of_one_caller_differ(caller: str) -> None:
    assert names.party_of(caller, 1) != names.party_of(caller, 2)


@pytest.mark.parametrize(
    "name", ["", "1700000000.1", "ari-gemini-party-", "ari-gemini-party-x-1", "ari-gemini-party-1-"]
)
def test_other_names(name: str) -> None:
    assert names.caller_of_party(name) is None
    assert names.caller_of_media(name) is None
    assert names.caller_of_bridge(name) is None

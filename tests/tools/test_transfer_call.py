"""``transfer_call``: only to names of the agent's own table, blind or with a word to the other party."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from ari_gemini.errors import ToolError
from ari_gemini.gemini.functions import to_gemini_schema
from ari_gemini.tools.base import FAREWELL_LIMIT, ToolContext
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.transfer_call import MAX_SUMMARY, TransferCall

sys.path.insert(0, str(Path(__file__).parent))

from toolbox_support import FakeCall, Inbox, rigged

BLIND = Destination(context="sales", extension="1001")
ATTENDED = Destination(context="office", extension="1", attended=True, ring_seconds=60)
BOTH = {"sales": BLIND, "boss": ATTENDED}


async def transferred(
    destinations: Mapping[str, Destination], call: FakeCall | None = None, **args: Any
) -> tuple[FakeCall, Any]:
    call = call or FakeCall()
    answer = await TransferCall(destinations).run(args, ToolContext(call, structlog.get_logger()))
    return call, answer


async def asked(destinations: Mapping[str, Destination], **args: Any) -> tuple[list[Any], Mapping[str, Any]]:
    """What a call of the model leads to: what the call was told to do, and the answer."""
    inbox = Inbox()
    async with rigged(TransferCall(destinations), answers=inbox) as rig:
        rig.call("transfer_call", **args)
        await rig.idle()
    return rig.control.done, inbox.answers["1"]


def properties(destinations: Mapping[str, Destination]) -> dict[str, Any]:
    parameters = TransferCall(destinations).declaration.parameters
    assert parameters is not None
    assert parameters["required"] == ["destination"]
    assert parameters["additionalProperties"] is False
    return dict(parameters["properties"])


def test_the_model_may_choose_among_the_names_of_the_table() -> None:
    assert properties(BOTH)["destination"]["enum"] == ["sales", "boss"]
    assert properties({"sales": BLIND})["destination"]["enum"] == ["sales"]


def test_a_summary_is_asked_for_only_where_somebody_hears_it() -> None:
    assert set(properties({"sales": BLIND, "support": BLIND})) == {"destination"}
    summary = properties(BOTH | {"chief": ATTENDED})["summary"]
    assert summary["maxLength"] == MAX_SUMMARY
    assert summary["description"].endswith("Needed for boss, chief.")


def test_it_can_be_declared_to_gemini() -> None:
    schema = to_gemini_schema(TransferCall(BOTH).declaration.parameters or {}, "transfer_call")
    assert schema["properties"]["destination"] == {
        "type": "STRING",
        "description": "Whom the caller is connected with.",
        "enum": ["sales", "boss"],
    }
    assert schema["required"] == ["destination"]


def test_no_place_is_told_to_the_model() -> None:
    said = str(TransferCall(BOTH).declaration)
    assert "1001" not in said
    assert "office" not in said
    assert TransferCall(BOTH).goes_to == "sales = sales,1001,1; boss = Local/1@office/n, attended"


def test_there_is_time_for_the_longest_ringing() -> None:
    longer = Destination(context="a", extension="1", attended=True, ring_seconds=90)
    blind, attended, both = (TransferCall(d).time_limit for d in ({"a": BLIND}, BOTH, BOTH | {"b": longer}))
    assert blind > FAREWELL_LIMIT
    assert (attended - blind, both - blind) == (60, 90)


def test_it_stays_done() -> None:
    assert not TransferCall(BOTH).undoable


async def test_a_blind_transfer() -> None:
    call, answer = await transferred(BOTH, destination="sales")
    assert call.done == [("transfer", BLIND)]
    assert answer == "The caller has been sent on."


async def test_a_summary_for_nobody_does_no_harm() -> None:
    done, answer = await asked(BOTH, destination="sales", summary="Ms Smith calls.")
    assert done == [("transfer", BLIND)]
    assert answer == {"result": "The caller has been sent on."}


async def test_an_attended_transfer_tells_the_model_whom_it_speaks_to_now() -> None:
    call, answer = await transferred(BOTH, destination="boss", summary=" Ms Smith calls about an order. ")
    assert call.done == [("consult", ATTENDED)]
    assert answer.startswith("boss has answered. From now on boss hears you, and the caller does not.")
    assert answer.endswith(" Ms Smith calls about an order.")


@pytest.mark.parametrize("args", [{}, {"summary": ""}, {"summary": " \n"}])
async def test_an_attended_transfer_without_a_summary_does_not_ring(args: dict[str, str]) -> None:
    done, answer = await asked(BOTH, destination="boss", **args)
    assert done == []
    assert answer == {"error": "boss is told first who is calling: say it in the argument summary"}


@pytest.mark.parametrize(
    ("destinations", "args", "why"),
    [
        (BOTH, {}, "destination is missing"),
        (BOTH, {"destination": "SALES"}, 'destination must be one of: "sales", "boss"'),
        (BOTH, {"destination": "sales,1001,1"}, 'destination must be one of: "sales", "boss"'),
        (BOTH, {"destination": "PJSIP/1002"}, 'destination must be one of: "sales", "boss"'),
        (BOTH, {"destination": "sales\n"}, 'destination must be one of: "sales", "boss"'),
        (BOTH, {"destination": ["sales"]}, "destination must be of type string"),
        (BOTH, {"destination": "sales", "number": "1"}, "number is unknown"),
        (BOTH, {"destination": "boss", "summary": "x" * 501}, "summary must have at most 500 characters"),
        ({"sales": BLIND}, {"destination": "sales", "summary": "x"}, "summary is unknown"),
    ],
)
async def test_nowhere_else(destinations: Mapping[str, Destination], args: dict[str, Any], why: str) -> None:
    done, answer = await asked(destinations, **args)
    assert done == []
    assert answer["error"].startswith("wrong arguments: ")
    assert why in answer["error"]


@pytest.mark.parametrize(("name", "verb"), [("sales", "transfer"), ("boss", "consult")])
async def test_a_refusal_of_the_call_goes_to_the_model(name: str, verb: str) -> None:
    with pytest.raises(ToolError, match="nobody answered"):
        await transferred(BOTH, FakeCall(**{verb: "nobody answered"}), destination=name, summary="Ms Smith.")


async def test_the_table_is_the_agents_own() -> None:
    """What becomes of the mapping afterwards changes nothing."""
    table = dict(BOTH)
    tool = TransferCall(table)
    table.clear()
    call = FakeCall()
    await tool.run({"destination": "sales"}, ToolContext(call, structlog.get_logger()))
    assert call.done == [("transfer", BLIND)]

"""A row is an address and a judgement; its JSON has the keys that the schema lists. A failure is a judgement too."""

import json
from dataclasses import fields
from functools import partial

import pytest

from gradwitness import Verdict
from gradwitness.errors import UnsupportedError
from gradwitness.report import Address, Report, Row
from gradwitness.report.document import schema
from gradwitness.run.trial import Failure, attempt
from gradwitness.verdict import Judgement

ADDRESS = Address("net", "mine [vmap]", "torch", "cpu", "float32", parameter="w", path="vmap")
JUDGEMENT = Judgement(Verdict.DISAGREE, "off", error=2.0, floor=1.0, ratio=0.5, seen=4, unseen=5, doubted=True)
ROW = Row.of(ADDRESS, JUDGEMENT, shape=(2,), reference=7.0, custom={"rule": True})


def test_a_row_has_the_names_of_its_address_its_judgement_and_the_facts() -> None:
    for part in (ADDRESS, JUDGEMENT):
        assert {f.name: getattr(ROW, f.name) for f in fields(part)} == vars(part)
    assert (ROW.label, ROW.shape, ROW.reference, ROW.custom) == ("mine", (2,), 7.0, {"rule": True})
    assert Row("net", "mine", "torch", "cpu", "float32", Verdict.ERROR, "raised").message == "raised"


def test_the_json_of_a_row_is_what_the_schema_lists() -> None:
    (row,) = json.loads(Report((ROW,), {}).json())["rows"]
    listed = schema()["properties"]["rows"]["items"]
    assert list(row) == list(listed["properties"])
    assert set(listed["required"]) <= set(row)
    beside = {"unseen", "doubted"}  # what one judgement says to the next; no evidence for a reader
    assert {f.name for f in fields(Row)} - set(row) == beside


@pytest.mark.parametrize(
    ("error", "verdict", "message"),
    [
        (UnsupportedError("no such op"), Verdict.UNSUPPORTED, "no such op"),
        (ValueError("no such luck"), Verdict.ERROR, "ValueError: no such luck"),
        (SystemExit(3), Verdict.ERROR, "SystemExit: 3"),
    ],
)
def test_what_is_raised_is_a_failure_that_has_a_row(error: BaseException, verdict: Verdict, message: str) -> None:
    found = attempt(partial(_raise, error))
    assert isinstance(found, Failure)
    row = Row.of(ADDRESS, found)
    assert (row.verdict, row.parameter) == (verdict, "w")
    assert row.message.startswith(message)
    assert attempt(lambda: JUDGEMENT) is JUDGEMENT


def test_an_interrupt_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(partial(_raise, KeyboardInterrupt()))


def _raise(error: BaseException) -> None:
    raise error

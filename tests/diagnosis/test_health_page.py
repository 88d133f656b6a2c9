"""docs/health.md: its example prints what stands below it, and its table has every finding."""

from __future__ import annotations

import re

import pytest
import torch

from gradwitness.diagnosis.findings import RULES
from gradwitness.diagnosis.remedies import REMEDIES
from gradwitness.diagnosis.table import HEADER
from tests.project.readme import README, blocks

PAGE = README.parent / "docs" / "health.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    (example,) = blocks(PAGE)
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102  # our own page
    assert f"\n```\n{capsys.readouterr().out}```\n" in TEXT


def test_every_finding_and_every_column_is_told() -> None:
    assert re.findall(r"^\| `([\w ]+)` \|", TEXT, re.MULTILINE) == [*HEADER[1:], *RULES]


def test_the_table_has_every_remedy() -> None:
    table = TEXT.partition("<!-- table: remedies -->")[2]
    assert [
        line for remedy in REMEDIES for line in [f"\n{remedy.name} "] * len(remedy.depths) if line not in table
    ] == []

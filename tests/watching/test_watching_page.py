"""docs/watching.md: its example prints what stands below it, and its table has every finding."""

from __future__ import annotations

import re

import pytest

from gradwitness.watching.rules import RULES
from tests.project.readme import README, blocks

PAGE = README.parent / "docs" / "watching.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks(PAGE)[0], str(PAGE), "exec"), {})  # noqa: S102  # our own page
    assert f"\n```\n{capsys.readouterr().out}```\n" in TEXT


def test_every_finding_is_told() -> None:
    assert re.findall(r"^\| `([\w -]+)` \|", TEXT, re.MULTILINE) == list(RULES)

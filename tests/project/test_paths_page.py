"""docs/paths.md tells the truth: its examples run and print what stands there, and it lists every path."""

from __future__ import annotations

import re

import pytest

from gradwitness import registry
from tests.project.readme import README, blocks, printed, table_in

PAGE = README.parent / "docs" / "paths.md"
TEXT = PAGE.read_text(encoding="utf-8")


def verdicts(table: str) -> list[tuple[str, str]]:
    """The path and the verdict of each row: what does not depend on the machine."""
    found = re.findall(r"^loss +float32 +.*\[(.*?)\].* (\S+)$", table, re.MULTILINE)
    return [(path, verdict) for path, verdict in found if verdict != "wrong"]


def rows(table: str) -> str:
    return table.partition("\n\n")[0]


@pytest.mark.nightly
def test_the_first_example_prints_the_table() -> None:
    text = printed(blocks(PAGE)[0])
    shown = table_in(TEXT, "paths")
    assert verdicts(rows(text)) == verdicts(rows(shown))
    assert ("non-contiguous", "disagree") in verdicts(rows(text))
    assert [line for line in text.splitlines() if line.startswith("custom rule")] == [
        line for line in shown.splitlines() if line.startswith("custom rule")
    ]


def test_the_second_example_prints_that_the_rule_was_bypassed() -> None:
    assert printed(blocks(PAGE)[1]) == table_in(TEXT, "bypassed")


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_path_has_its_line(backend: str) -> None:
    section = TEXT.partition(f"| {backend} | |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)) == registry.backend(backend).capabilities.paths

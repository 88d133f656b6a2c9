"""The README tells the truth: its examples run, and print the verdicts that stand there."""

from __future__ import annotations

import re

import pytest

from tests.plugin.options import PLUGIN
from tests.project.readme import README, agreement, example, fault, own_agreement, own_fault, own_op, table_in

TEXT = README.read_text(encoding="utf-8")


def verdicts(table: str) -> list[tuple[str, ...]]:
    """dtype, backend, verdict of each row: what does not depend on the machine."""
    rows = [line.split() for line in table.splitlines() if line.startswith("loss  ")]
    return [(r[1], r[2], r[-1]) for r in rows]


@pytest.mark.slow
def test_the_example_prints_the_table() -> None:
    printed = agreement()
    assert verdicts(printed) == verdicts(table_in(TEXT, "agreement"))
    assert {v for *_, v in verdicts(printed)} == {"agree"}
    assert {b for _, b, _ in verdicts(printed)} == {"numpy", "torch", "torch.compile", "jax"}


@pytest.mark.slow
def test_the_planted_fault_prints_the_other_table() -> None:
    printed = fault()
    assert verdicts(printed) == verdicts(table_in(TEXT, "fault"))
    assert {b for _, b, v in verdicts(printed) if v != "agree"} == {"numpy"}


def test_the_second_example_holds() -> None:
    assert own_agreement() == ""


def test_the_second_example_with_a_mean_for_a_sum_says_who_and_where() -> None:
    printed, shown = own_fault(), table_in(TEXT, "own fault")
    assert verdicts(printed) == verdicts(shown)
    assert {backend for _, backend, verdict in verdicts(printed) if verdict != "agree"} == {"mine"}
    said, told = (text.partition("\n\n")[2].splitlines() for text in (printed, shown))
    assert [line.split(":")[:2] for line in said] == [line.split(":")[:2] for line in told]
    assert said[0].startswith("loss float64 mine b: disagree: finite differences refute it at [")


def test_the_pytest_examples_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"{example(1)}\n\n{example(2)}\n\n{example(3)}")
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=2)
    assert "gradwitness: 4 gradients in 1 test: 4 agree" in result.stdout.str()


@pytest.mark.slow
@pytest.mark.usefixtures("vocabulary_restored")
def test_the_op_of_ones_own_holds() -> None:
    assert own_op() == ""


def test_local_links_lead_somewhere() -> None:
    for page in [README, *README.parent.glob("*.md"), *README.parent.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

"""The report as a table, as HTML, Markdown, JUnit's XML and numbers: what each of its readers sees."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from gradwitness import Report, Row, Verdict
from gradwitness.report import joined

LONG = "transformer.h.11.attn.c_attn.weight"
EVIL = '<script>alert("x")</script>|`\n\x1b[31m'


def row(candidate: str, verdict: Verdict = Verdict.AGREE, message: str = "", **more: object) -> Row:
    facts = {"parameter": "w", "error": 2e-8, "floor": 1e-7, "reference": 2.0, "shape": (2,)} | more
    return Row("net", candidate, "torch", "cpu", "float32", verdict, message, **facts)  # type: ignore[arg-type]


WRONG = row("mine", Verdict.DISAGREE, "finite differences refute it", error=None, fd_error=0.5, fd_bound=1e-9)


def lines(report: Report, **how: object) -> list[str]:
    return report.table(**how).splitlines()  # type: ignore[arg-type]


def test_what_disagrees_comes_first_and_the_summary_last() -> None:
    found = lines(Report((row("a"), row("b"), WRONG), {}))
    assert found[2].split() == ["net", "float32", "mine", "w", "fd", "2.5e-01", "disagree"]
    assert found[3].split() == ["net", "float32", "a", "w", "0.2", "floors", "agree"]
    assert found[-1] == "3 gradients: 2 agree, 1 disagree"
    assert "net float32 mine w: disagree: finite differences refute it" in found


def test_many_that_agree_are_one_line_with_the_worst_of_them() -> None:
    rows = [row(f"c{i}", error=1e-8 * i, ratio=0.01 * i) for i in range(30)]
    found = lines(Report((*rows, WRONG), {}))
    assert "30 agree, the worst by 2.9 floors: net float32 c29 w" in found
    assert len([line for line in found if line.startswith("net ")]) == 2
    assert len(lines(Report(tuple(rows), {}), verbose=True)) > 30


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_row_is_wider_than_it_may_be(width: int) -> None:
    figures = {"parameter": LONG, "error": 1.0, "floor": 1e-3, "reference": 1.0}
    rows = tuple(
        Row("a network with a long name", f"mine {i} [torch.func.grad]", "torch", "cpu", "bfloat16", verdict, **figures)  # type: ignore[arg-type]
        for i, verdict in enumerate(Verdict)
    )
    table = Report(rows, {}).table(width=width).split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= width
    assert all("weight" in line for line in table[2:])


def test_a_cell_never_speaks_against_the_verdict() -> None:
    """A gradient that differences refute is not shown at so many floors from itself."""
    import numpy as np

    import gradwitness as gw

    candidate = gw.Candidate("numpy", lambda p, b: (p["w"] ** 2).sum(), gradient=lambda p, b: {"w": 3 * p["w"]})
    report = gw.verify(candidate, {"w": np.array([0.5, 2.0])}, dtypes=("float64", "float32"))
    shown = [line for line in lines(report) if line.startswith("loss ")]
    assert [line.split()[4] for line in shown if line.endswith("disagree")] == ["fd", "fd"]
    verbose = [line for line in lines(report, verbose=True) if line.endswith("  disagree")]
    assert len(verbose) == 2
    assert all(found.error is None and found.ulps is None for found in report.rows)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_short_names_and_long_verdicts_fit_too(width: int) -> None:
    rows = tuple(row("mine", verdict, parameter=LONG) for verdict in Verdict)
    table = Report(rows, {}).table(width=width).split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= width


def test_many_findings_on_one_candidate_are_counted() -> None:
    rows = tuple(row("mine", Verdict.DISAGREE, f"off at {i}", parameter=f"w{i}") for i in range(24))
    notes = [line for line in lines(Report(rows, {})) if line.startswith("net") and "off at" in line]
    assert len(notes) == 4
    assert "net mine: 20 more that are disagree (verbose says which)" in lines(Report(rows, {}))
    assert sum("off at" in line for line in lines(Report(rows, {}), verbose=True)) == 24
    assert len(Report(rows, {}).failures()) == 24


def test_one_finding_is_one_line() -> None:
    rows = [row("t", Verdict.NONDETERMINISTIC, f"two answers, {i} apart", parameter=f"w{i}") for i in range(56)]
    report = Report((*rows, row("other")), {})
    (line,) = [line for line in lines(report) if line.startswith("net float32 t w0")]
    assert line == "net float32 t w0 and 55 other tensors: nondeterministic: two answers, 0 apart"
    assert report.failures() == (line,)
    assert len(repr(report).splitlines()) == 2


def test_the_textbook_figure_stands_beside_no_tensor() -> None:
    report = Report((row("a", textbook=3e-4), row("a", textbook=3e-4, parameter="b")), {})
    assert "textbook" not in report.table()
    (line,) = [line for line in lines(report, verbose=True) if "textbook" in line]
    assert line.endswith(": net float32 a 3e-04 FAILS")


def test_color_is_for_verdicts_and_the_summary() -> None:
    text = Report((row("a"), WRONG), {}).table(color=True)
    assert "\033[32magree\033[0m" in text
    assert text.splitlines()[-1] == "\033[1m\033[31m2 gradients: 1 agree, 1 disagree\033[0m"


def test_a_notebook_shows_it_and_runs_nothing_of_it() -> None:
    html = Report((row(EVIL, Verdict.DISAGREE, EVIL), row("a", captured=3)), {})._repr_html_()
    assert "captured: a (3 ops)" in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "2 gradients: 1 agree, 1 disagree" in html
    tree = ElementTree.fromstring(html.replace("\x1b", ""))
    assert [len(line) for line in tree.iter("tr")] == [6, 6, 6]


def test_markdown_keeps_its_cells_apart() -> None:
    text = Report((row(EVIL, Verdict.DISAGREE, EVIL), row("a")), {}).markdown()
    assert text.startswith("### ❌ gradwitness: 2 gradients: 1 agree, 1 disagree\n")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}
    assert not any(re.search(r"(?<!\\)<script", line) for line in table)
    assert Report((row("a"),), {}).markdown().startswith("### ✅ ")


def test_junit_has_a_case_for_each_gradient() -> None:
    skipped = row("b", Verdict.UNSUPPORTED, "no such dtype", parameter=None)
    raised = row("c", Verdict.ERROR, EVIL, parameter=None)
    rows = (row("a"), WRONG, skipped, raised, row("d", Verdict.INCONCLUSIVE, "coarse"))
    report = Report(rows, {}, allow=("inconclusive",), require=("jax",))
    root = ElementTree.fromstring(report.junit().split("\n", 1)[1])
    suite, whole = root
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "1"]
    assert [(case.get("classname"), case.get("name"), [x.tag for x in case]) for case in suite] == [
        ("net.float32.a", "w", []),
        ("net.float32.mine", "w", ["failure"]),
        ("net.float32.b", "(all)", ["skipped"]),
        ("net.float32.c", "(all)", ["error"]),
        ("net.float32.d", "w", []),
    ]
    assert whole[0].get("name") == "jax is required, and did not agree everywhere it was asked"


def test_metrics_are_flat_numbers() -> None:
    found = Report((row("a", setup_seconds=1.5), WRONG), {}).metrics()
    assert all(isinstance(value, float | int) for value in found.values())
    assert (found["ok"], found["gradients"], found["agree"], found["disagree"]) == (0.0, 2, 1, 1)
    assert found["net/a/float32/error_in_floors"] == pytest.approx(0.2)
    assert found["net/a/float32/setup_seconds"] == 1.5
    assert "net/mine/float32/error_in_floors" not in found


def test_joined_reports_keep_what_each_allows_and_no_other() -> None:
    lenient = Report((row("a", Verdict.INCONCLUSIVE),), {}, allow=("inconclusive",))
    strict = Row("another", "b", "torch", "cpu", "float32", Verdict.AGREE, "", parameter="w")
    assert joined([lenient, Report((strict,), {}, require=("b",))])
    failing = Row("another", "b", "torch", "cpu", "float32", Verdict.INCONCLUSIVE, "coarse", parameter="w")
    report = joined([lenient, Report((strict, failing), {})])
    assert not report
    assert len(report.failures()) == 1
    of_one_name = Report((row("b", Verdict.INCONCLUSIVE),), {})
    assert not joined([lenient, of_one_name])
    assert not joined([of_one_name, lenient])

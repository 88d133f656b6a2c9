"""The corpus is what it says, the judge's answers are counted as they should be, and the page is the record's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.adversary.__main__ import PAGE, main
from benchmarks.adversary.corpus import Case, Subject, distance
from benchmarks.adversary.frameworks import FRAMEWORKS, framework
from benchmarks.adversary.kinds import KINDS, corpus, every_case
from benchmarks.adversary.measure import ACCEPTED, Finding, counted, judged, measured
from benchmarks.adversary.page import BLOCKS, totals
from benchmarks.adversary.results import RESULTS, load, recorded, save
from benchmarks.sensitivity.table import filled

ALL = tuple(every_case())
SAMPLE = ALL[::40]
CHEAP = next(case for case in corpus("smooth") if case.framework == "numpy")


def test_there_are_hundreds_of_wrong_and_of_right_gradients() -> None:
    traced = [case for case in ALL if case.framework == "ops"]
    assert sum(not case.is_right for case in ALL) >= 300
    assert sum(case.is_right for case in ALL) >= 300
    assert len(traced) >= 60
    assert len({case.name for case in ALL}) == len(ALL)


def test_the_corpus_has_every_framework_dtype_and_size() -> None:
    sizes = {leaf.size for case in corpus("sizes") for leaf in case.subject.at(0)[0].values()}
    assert {case.framework for case in ALL} == set(FRAMEWORKS)
    assert {case.dtype for case in ALL} == {"float64", "float32", "bfloat16", "float16"}
    assert sizes == {1, 3, 33, 1000, 100_000, 1_000_000}
    assert {len(case.point[0]) for case in corpus("networks")} >= {4, 60}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_wrong_and_right_gradients(kind: str) -> None:
    assert {case.is_right for case in corpus(kind)} == {True, False}
    assert max(len(case.subject.seeds) for case in corpus(kind)) <= 3


def test_one_thing_is_not_there_twice_by_its_seed_alone() -> None:
    without_seeds = {case.name.replace(f", seed {case.seed}", "") for case in ALL}
    assert len(without_seeds) > 0.8 * len(ALL)


def _faults() -> Iterator[Case]:
    """Every fault once, in float64; those in what else a candidate says have no distance."""
    seen = set()
    for case in ALL:
        key = (case.kind, case.subject.name, case.fault and case.fault.name)
        if case.fault is not None and case.fault.make is None and key not in seen:
            seen.add(key)
            yield case


@pytest.mark.parametrize("case", tuple(_faults())[::6], ids=lambda case: case.name)
def test_a_wrong_gradient_is_off_by_what_it_says(case: Case) -> None:
    assert case.fault is not None
    for leaf, off in distance(case).items():
        assert off >= case.fault.off, leaf
        assert off > 0, leaf


HANDWRITTEN = {s.name: s for subjects in KINDS.values() for s in subjects if s.plain is not None and s.exact is None}


@pytest.mark.parametrize("subject", HANDWRITTEN.values(), ids=lambda subject: subject.name)
def test_a_right_rule_is_the_derivative(subject: Subject) -> None:
    f = framework("torch")
    params, batch = ({k: f.library.tensor(v) for k, v in tree.items()} for tree in subject.at(0))
    right, plain = (f.gradient(loss)(params, batch) for loss in (subject.loss, subject.forward))
    for leaf, gradient in plain.items():
        np.testing.assert_allclose(right[leaf], gradient, rtol=1e-9, atol=1e-12, err_msg=leaf)


STAIRS = [subject for subject in KINDS["stairs"] if subject.exact is not None]


@pytest.mark.parametrize("subject", STAIRS, ids=lambda subject: subject.name)
def test_the_gradient_of_a_staircase_is_what_long_steps_say(subject: Subject) -> None:
    f = framework("numpy")
    params, batch = subject.at(0)
    direction, step = np.random.default_rng(3).normal(size=params["x"].shape), 1e-2
    forward, back = (subject.loss(f, {"x": params["x"] + s * step * direction}, batch) for s in (1, -1))
    assert subject.exact is not None
    expected = subject.exact(f, params, batch)["x"] @ direction
    assert (forward - back) / (2 * step) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", [name for name in FRAMEWORKS if name != "ops"])
def test_a_rule_has_the_backward_that_it_was_given(name: str) -> None:
    f = framework(name)
    rule = f.rule(lambda f, x: x * x, lambda f, g, x: (7 * g,))

    def loss(f: Any, p: Any, b: Any) -> Any:
        return framework(f.name).rule(lambda f, x: x * x, lambda f, g, x: (7 * g,))(p["x"]).sum()

    x = f.asarray(np.array([1.0, 2.0], np.float32))
    np.testing.assert_array_equal(np.asarray(rule(x)), [1.0, 4.0])
    np.testing.assert_array_equal(np.asarray(f.gradient(loss)({"x": x}, {})["x"]), [7.0, 7.0])


def says(verdict: str, case: Case) -> SimpleNamespace:
    """A judge that says the same of every leaf."""
    said = {"candidate": "mine", "verdict": verdict, "message": ""}
    return SimpleNamespace(rows=[SimpleNamespace(parameter=leaf, **said) for leaf in case.point[0]])


def silent(finding: Finding) -> None:
    """No progress."""


@pytest.mark.parametrize("verdict", ACCEPTED)
def test_who_accepts_everything_has_all_false_greens(verdict: str) -> None:
    findings = measured(SAMPLE, judge=partial(says, verdict), progress=silent)
    assert [f.is_false_green for f in findings] == [not case.is_right for case in SAMPLE]
    assert not any(f.is_false_alarm for f in findings)


@pytest.mark.parametrize("verdict", ["disagree", "missing", "nonfinite", "nondeterministic", "different-loss", "error"])
def test_who_accuses_everything_has_all_false_alarms(verdict: str) -> None:
    findings = measured(SAMPLE, judge=partial(says, verdict), progress=silent)
    assert [f.is_false_alarm for f in findings] == [case.is_right for case in SAMPLE]
    assert not any(f.is_false_green for f in findings)


def test_who_never_knows_is_neither() -> None:
    findings = measured(SAMPLE, judge=partial(says, "inconclusive"), progress=silent)
    assert {f.counts_as for f in findings} == {"inconclusive"}
    assert any(f.demanded for f in findings)


def test_one_accepted_leaf_at_fault_is_a_false_green_and_others_are_not_asked() -> None:
    case = next(c for c in ALL if c.fault and c.fault.leaves and len(c.fault.leaves) > 1)
    at_fault = dict.fromkeys(case.at_fault, "disagree")
    assert counted(case, at_fault) == "shown"
    assert counted(case, {**at_fault, "another": "agree"}) == "shown"
    assert counted(case, {**at_fault, case.at_fault[0]: "agree"}) == "accepted"
    assert counted(case, {}) == "accepted"  # nothing is said, and nothing held against it
    assert counted(case, {"None": "error"}) == "shown"


def test_a_crash_is_a_finding_and_so_is_a_case_that_takes_too_long() -> None:
    def crashes(case: Case) -> Any:
        raise ValueError("out of cheese")

    def hangs(case: Case) -> Any:
        try:
            time.sleep(10)
        except Exception:  # noqa: BLE001 - as a judge that survives what candidates raise
            return says("agree", case)

    crashed = judged(CHEAP, crashes)
    assert (crashed.counts_as, crashed.message) == ("crashed", "ValueError: out of cheese")
    assert judged(CHEAP, hangs, seconds=0.05).counts_as == "timeout"


def test_what_is_asked_of_one_kind_leaves_the_others_on_record(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    for kind, verdict in (("smooth", "agree"), ("flat", "disagree"), ("smooth", "inconclusive")):
        findings = measured(corpus(kind)[:8], judge=partial(says, verdict), progress=silent)
        save(recorded(findings, quick=True), "now", file, KINDS)
    kinds = load(file)["now"]["kinds"]
    assert list(kinds) == ["smooth", "flat"]
    assert not kinds["smooth"]["false greens"]
    assert kinds["flat"]["false alarms"]


def test_gradwitness_is_asked_of_a_right_and_a_wrong_one() -> None:
    wrong = replace(CHEAP, fault=CHEAP.subject.wrongs[0])
    assert judged(CHEAP).counts_as == "agreed"
    assert judged(wrong).counts_as == "shown"


def test_a_traced_loss_is_judged_with_the_gradient_beside_it() -> None:
    right, wrong = (next(c for c in corpus("traced") if c.is_right is is_right) for is_right in (True, False))
    assert (judged(right).counts_as, judged(wrong).counts_as) == ("agreed", "shown")


def test_the_page_is_the_record() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, load(), BLOCKS) == page
    assert all(f"| {kind} |" in page for kind in KINDS)


def test_the_published_record_is_of_every_kind() -> None:
    for record in load().values():
        assert list(record["kinds"]) == list(KINDS)
        assert record["corpus"] == "1"


def test_the_command_writes_the_page_and_says_what_it_found(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "record.json"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    asked = ["--quick", "--kind", "hidden leaves", "--results", str(results), "--page", str(page)]
    told = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert told.exit_code == 0
    assert totals(load(results)["now"]) in told.output
    assert "a sample" in page.read_text(encoding="utf-8")


def test_a_sample_is_not_published() -> None:
    before = RESULTS.read_bytes()
    refused = CliRunner().invoke(main, ["--quick"])
    assert refused.exit_code == 2
    assert "is not published" in refused.output
    assert RESULTS.read_bytes() == before
    assert json.loads(before)

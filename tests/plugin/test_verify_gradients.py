"""The pytest plugin: what `verify_gradients` makes of right and of wrong gradients, as pytest shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradwitness.report.document import schema
from gradwitness_pytest.verifier import LONGEST, file_name
from tests.plugin.options import PLUGIN

SUITE = Path(__file__).with_name("suite.py").read_text(encoding="utf-8")
FAULT = (
    r"test_fault float64 mine b: disagree: finite differences refute it at \[2\]: "
    r"-0\.0211118695, finite difference -0\.168894956 \+- \d+e-\d+"
)


@pytest.fixture(autouse=True)
def as_at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest repeats whole messages in its short summary where the environment says that this is a CI."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    """pytest on these tests of the suite, named without `test_`."""
    pytester.makepyfile(test_suite=SUITE)
    chosen = [f"test_suite.py::test_{name}" for name in tests.split()]
    return pytester.runpytest_subprocess(*PLUGIN, *arguments, *chosen)


def shown(result: pytest.RunResult, test: str) -> list[str]:
    """What pytest shows of a failure, from its header to the next."""
    text = result.stdout.str()
    found = re.search(rf"^_+ test_{re.escape(test)} _+\n(.*?)\n(?:_{{3,}} |-+ gradwitness|=+ )", text, re.M | re.S)
    assert found, text
    return found[1].splitlines()


def summaries(result: pytest.RunResult) -> list[str]:
    return re.findall(r"^-+ (gradwitness: .*?) -+$", result.stdout.str(), re.MULTILINE)


def seed_in_header(result: pytest.RunResult) -> int:
    found = re.search(r"^gradwitness: --gradwitness-seed=(\d+)$", result.stdout.str(), re.MULTILINE)
    assert found, result.stdout.str()
    return int(found[1])


def evidence(folder: Path) -> dict[str, dict[str, Any]]:
    """The files in a folder, by name; each as the schema says."""
    found = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.iterdir())}
    for document in found.values():
        jsonschema.validate(document, schema())
    return found


def test_right_gradients_pass_and_are_summed_up(pytester: pytest.Pytester) -> None:
    result = run(pytester, "right problem required")
    result.assert_outcomes(passed=3)
    (summary,) = summaries(result)
    assert re.fullmatch(r"gradwitness: (\d+) gradients in 3 tests: \1 agree", summary)


def test_a_wrong_gradient_fails_and_is_named_without_a_traceback(pytester: pytest.Pytester) -> None:
    result = run(pytester, "fault right")
    result.assert_outcomes(passed=1, failed=1)
    first, second, third = shown(result, "fault")
    assert first == "gradwitness: 2 gradients: 1 agree, 1 disagree"
    assert re.fullmatch(FAULT, second)
    line = next(i for i, text in enumerate(SUITE.splitlines(), 1) if "def test_fault(" in text)
    where = re.fullmatch(r"test_suite\.py:(\d+): Failed", third)
    assert where
    assert line < int(where[1]) < line + 8
    assert "verifier.py" not in result.stdout.str()
    assert summaries(result) == ["gradwitness: 4 gradients in 2 tests: 3 agree, 1 disagree"]


def test_a_second_call_is_told_from_the_first(pytester: pytest.Pytester) -> None:
    result = run(pytester, "second_call")
    result.assert_outcomes(failed=1)
    assert shown(result, "second_call")[1].startswith("test_second_call-2 float64 mine b: disagree")
    assert summaries(result) == ["gradwitness: 4 gradients in 1 test: 3 agree, 1 disagree"]


def test_allow_and_require(pytester: pytest.Pytester) -> None:
    result = run(pytester, "allowed fault_that_is_expected required required_and_absent")
    result.assert_outcomes(passed=3, failed=1)
    assert shown(result, "required_and_absent")[:-1] == [
        "gradwitness: 2 gradients: 2 agree",
        "torch is required, and did not agree everywhere it was asked",
    ]


def test_wrong_usage_is_one_error_at_the_call(pytester: pytest.Pytester) -> None:
    usage = {
        "label": "GradwitnessError: 'mine' is no backend (there is: ",
        "trace": "TraceError: ",
        "allow": "UnknownName: unknown verdict 'everything'; there is: agree, ",
        "require": "UnknownName: unknown backend 'tensorflow'; there is: jax, numpy, ",
        "option": "GradwitnessError: verify has no 'tolerance': how far a gradient may be off is measured",
    }
    result = run(pytester, " ".join(f"usage_{name}" for name in usage))
    result.assert_outcomes(failed=len(usage))
    for name, message in usage.items():
        lines = shown(result, f"usage_{name}")
        assert message in next(line for line in lines if line.startswith("E  "))
        assert [line for line in lines if line.startswith(">")] == [next(x for x in lines if "verify_gradients(" in x)]
        assert not re.search(r"verifier\.py|verify/|During handling|direct cause", "\n".join(lines))
    assert summaries(result) == []


def test_evidence_is_kept_of_every_call(pytester: pytest.Pytester) -> None:
    result = run(pytester, "second_call elsewhere", "--gradwitness-json=new/folder")
    result.assert_outcomes(passed=2, failed=1)
    folder = pytester.path / "new" / "folder"
    kept = evidence(folder)
    assert sorted((d["environment"]["test"], d["rows"][0]["network"], d["ok"]) for d in kept.values()) == [
        ("test_suite.py::test_elsewhere[a-b]", "tanh", True),
        ("test_suite.py::test_elsewhere[a/b]", "tanh", True),
        ("test_suite.py::test_second_call", "test_second_call", True),
        ("test_suite.py::test_second_call", "test_second_call-2", False),
    ]
    wrong = file_name("test_suite.py::test_second_call", 2)
    assert shown(result, "second_call")[2:-1] == [f"evidence in {folder / wrong}"]
    assert summaries(result)[0].endswith(f"; evidence in {folder}")


def test_the_seed_is_that_of_the_option_unless_the_call_gives_one(pytester: pytest.Pytester) -> None:
    result = run(pytester, "fault own_seed", "--gradwitness-seed=123", "--gradwitness-json=kept")
    assert seed_in_header(result) == 123
    assert shown(result, "fault")[-2] == "again with --gradwitness-seed=123"
    assert shown(result, "own_seed")[-2].startswith("evidence in ")
    found = {d["environment"]["test"]: d["environment"]["seed"] for d in evidence(pytester.path / "kept").values()}
    assert found == {"test_suite.py::test_fault": 123, "test_suite.py::test_own_seed": 7}


def test_with_xdist_the_seed_is_drawn_once_and_the_counts_arrive(pytester: pytest.Pytester) -> None:
    arguments = ("--gradwitness-seed=random", "--gradwitness-json=kept", "--numprocesses=2", "--dist=each")
    result = run(pytester, "right fault", *arguments)
    seed = seed_in_header(result)
    result.assert_outcomes(passed=2, failed=2)
    assert result.stdout.str().count(f"again with --gradwitness-seed={seed}") == 2
    assert {d["environment"]["seed"] for d in evidence(pytester.path / "kept").values()} == {seed}
    assert summaries(result)[0].startswith("gradwitness: 8 gradients in 4 tests: 6 agree, 2 disagree")


@pytest.mark.nightly
def test_with_xdist_each_call_has_its_file(pytester: pytest.Pytester) -> None:
    result = run(pytester, "right elsewhere second_call", "--gradwitness-json=kept", "--numprocesses=2")
    result.assert_outcomes(passed=3, failed=1)
    assert len(evidence(pytester.path / "kept")) == 5


def test_nothing_is_said_or_written_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    result = run(pytester, "unused", "--gradwitness-json=kept")
    result.assert_outcomes(passed=1)
    assert "gradwitness:" not in result.stdout.str()
    assert not (pytester.path / "kept").exists()


def test_quiet_is_quiet(pytester: pytest.Pytester) -> None:
    result = run(pytester, "right", "--quiet")
    result.assert_outcomes(passed=1)
    assert "gradwitness" not in result.stdout.str()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--gradwitness-seed=soon", "expected a whole number or 'random', got 'soon'"),
        ("--gradwitness-seed=-1", "expected a whole number or 'random', got '-1'"),
        ("--gradwitness-json=test_suite.py", "'test_suite.py' is no folder"),
    ],
)
def test_a_wrong_option_is_refused(pytester: pytest.Pytester, option: str, says: str) -> None:
    result = run(pytester, "right", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_file_names_are_plain_and_tell_calls_apart() -> None:
    ids = ["a/test_b.py::test_c[d/e]", "a/test_b.py::test_c[d-e]", "a/test_b.py::test_C[d-e]", "é\\:*?", "x" * 400]
    names = [file_name(nodeid, call) for nodeid in ids for call in (1, 2)]
    assert names[0].startswith("a-test_b.py-test_c-d-e-")
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+\.json", name) and len(name) <= LONGEST + 20 for name in names)


ASSERTED = """
import numpy as np
import gradwitness as gw

def loss(p, b):
    return float(np.sum(p["w"] ** 2))

def test_it():
    assert gw.verify(gw.Candidate("numpy", loss, gradient=lambda p, b: {"w": 3 * p["w"]}), {"w": np.ones(3)})

def test_another_assertion():
    assert not gw.verify(gw.Candidate("numpy", loss, gradient=lambda p, b: {"w": 3 * p["w"]}), {"w": np.ones(3)})
    assert 1 == 1

def test_another_failure():
    if not gw.verify(gw.Candidate("numpy", loss, gradient=lambda p, b: {"w": 3 * p["w"]}), {"w": np.ones(3)}):
        raise ValueError
"""


def test_an_assertion_of_verify_shows_the_table(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_asserted=ASSERTED)
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    assert len(re.findall(r"^-+ gradwitness -+$", text, re.MULTILINE)) == 1
    assert re.search(r"^loss +float64 +numpy +w +fd \S+ +disagree$", text, re.MULTILINE)
    assert re.search(r"^loss float64 numpy w: disagree: finite differences refute it", text, re.MULTILINE)

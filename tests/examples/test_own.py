"""The examples of an op and of a backend of one's own do what they say, as programs and piece by piece."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.testing import BackendConformance
from gradwitness.verdict import Verdict
from gradwitness_numpy.rule import Rule

pytestmark = pytest.mark.usefixtures("vocabulary_restored")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def own_backend(examples: None) -> Iterator[ModuleType]:
    """The example, its backend registered for one test."""
    module = importlib.import_module("own_backend")
    gw.register_backend(module.ComplexStep())
    yield module
    registry.unregister_backend("complexstep")


@pytest.mark.parametrize(
    ("example", "last"), [("own_op", "18 gradients: 18 agree"), ("own_backend", "4 gradients: 4 agree")]
)
def test_it_prints_agreement(example: str, last: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{example}.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == last


def test_an_op_takes_less_than_sixty_lines() -> None:
    assert len((EXAMPLES / "own_op.py").read_text().splitlines()) < 60


def test_the_new_op_on_the_new_backend(own_backend: ModuleType) -> None:
    own_backend.define()
    report = gw.verify_op("damped", dtypes=("float64",), backends=("numpy", "complexstep", "torch"))
    assert {row.backend: row.verdict for row in report.rows} == {
        "numpy": Verdict.AGREE, "complexstep": Verdict.AGREE, "torch": Verdict.UNSUPPORTED
    }  # fmt: skip


def test_a_wrong_rule_is_named_by_it(own_backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shares no derivative with the rule, and sees a factor."""
    op = own_backend.define()
    rules: dict[str, Rule] = registry.backend("numpy").own_ops  # type: ignore[attr-defined]
    right = rules["damped"]
    wrong = replace(right, vjp=lambda g, step: [1.001 * part for part in right.vjp(g, step)])
    monkeypatch.setitem(rules, "damped", wrong)
    report = gw.verify_op(op, dtypes=("float64",), backends=("numpy", "complexstep"))
    assert {row.backend for row in report.rows if row.verdict is Verdict.DISAGREE} == {"numpy"}
    assert {row.backend for row in report.rows if row.verdict is Verdict.AGREE} == {"complexstep"}


@pytest.mark.parametrize("name", [name for name in dir(BackendConformance) if name.startswith("test_")])
def test_the_new_backend_conforms(name: str, own_backend: ModuleType) -> None:
    class Suite(BackendConformance):
        backend = "complexstep"

    given = {"dtype": "float64", "family": "ops.elementwise", "dtype_asked": "int8", "device": "cpu"}
    test = getattr(Suite(), name)
    test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})

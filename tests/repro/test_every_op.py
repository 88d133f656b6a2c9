"""Each op of each backend can be written into a script, and a right gradient is not accused there."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness.networks.single_ops import op_problems
from gradwitness.protocol import Scripted
from gradwitness.report import Row
from gradwitness.repro.cut import as_graph
from gradwitness.repro.fault import Fault, look
from gradwitness.repro.script import script
from gradwitness.settings import Settings

BACKENDS = [
    name
    for name in registry.backend_names()
    if isinstance(registry.backend(name), Scripted) and not registry.backend(name).capabilities.compiles
]
DTYPES = ["float64", "float32"]


def said(text: str) -> tuple[int, str]:
    """What a script exits with and prints, run in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        exec(compile(text, "<script>", "exec"), {"__name__": __name__})  # noqa: S102  # what has just been written
    return int(ended.value.code or 0), output.getvalue()


def test_there_are_backends_to_try() -> None:
    assert {"numpy", "torch", "jax"} <= set(BACKENDS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_op(backend: str, dtype: str) -> None:
    tried = set()
    for problem in op_problems(0):
        (path, *_), candidate = problem.differentiated, gw.Candidate(backend)
        index = (0,) * problem.leaves[path].ndim
        settings = Settings((dtype,))
        fault = as_graph(Fault(candidate, problem.rounded(dtype), dtype, "cpu", settings, path, index))
        row: Any = Row(problem.name, backend, backend, "cpu", dtype, gw.Verdict.DISAGREE)
        status, output = said(script(fault, look(fault), row, {}))
        assert status == 0, (problem.name, output)
        tried.add(problem.name.split(".")[0])
    assert len(tried) > 50

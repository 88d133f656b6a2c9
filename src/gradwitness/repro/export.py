"""From a report to a script: which gradient, how small, and does it show what it should?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gradwitness import registry
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph
from gradwitness.repro.fault import Fault, located, look
from gradwitness.repro.script import script
from gradwitness.repro.shrink import shrunk
from gradwitness.run.problems import verify_problem
from gradwitness.verdict import Verdict
from gradwitness.writing import expect_writable, write_whole

if TYPE_CHECKING:
    from gradwitness.report import Case, Row

__all__ = ["export"]

SHOWN = {Verdict.DISAGREE, Verdict.NONFINITE, Verdict.MISSING}  # what one gradient and its differences show
LIMIT = 600.0  # seconds that the script may run; torch.compile takes most of a minute


def export(
    cases: Sequence[Case],
    rows: Sequence[Row],
    path: Path,
    *,
    candidate: str | None,
    parameter: str | None,
    dtype: str | None,
    seconds: float,
) -> None:
    """Write the script of the first gradient that is wrong and fits. Raises GradwitnessError as `Report` says."""
    expect_writable("export_repro", path)
    row = _chosen(rows, candidate, parameter, dtype)
    case = next((c for c in cases if c.problem.name == row.network and row.candidate in c.candidates), None)
    if case is None or row.parameter is None:
        raise GradwitnessError(
            "this report has no candidates: export from the report that gradwitness.verify returned, in its process"
        )
    if case.problem.complex:
        raise GradwitnessError(
            f"{', '.join(sorted(case.problem.complex))}: no script is written of complex leaves: let the loss take the "
            "real and the imaginary part as two leaves, and put them together"
        )
    fault = _smallest(shrunk(located(_fault(row, row.parameter, case)), seconds), row)
    text = script(fault, look(fault), row, _others(fault, row, case))
    _expect_reproduces(text)
    try:
        write_whole(path, text)
    except OSError as error:
        raise GradwitnessError(f"{path}: cannot be written: {error.strerror}") from None


def _chosen(rows: Sequence[Row], candidate: str | None, parameter: str | None, dtype: str | None) -> Row:
    asked = [
        row
        for row in rows
        if candidate in (None, row.candidate) and parameter in (None, row.parameter) and dtype in (None, row.dtype)
    ]
    if found := next((row for row in asked if row.verdict in SHOWN), None):
        return found
    verdicts = ", ".join(dict.fromkeys(row.verdict for row in asked)) or "no such gradient"
    raise GradwitnessError(
        f"nothing to reproduce: a script shows a gradient that is {', '.join(sorted(SHOWN))}; here: {verdicts}"
    )


def _fault(row: Row, parameter: str, case: Case) -> Fault:
    settings = replace(case.settings, dtypes=(row.dtype,), devices=(row.device,))
    problem = case.problem.rounded(row.dtype)
    return Fault(case.candidates[row.candidate], problem, row.dtype, row.device, settings, parameter)


def _smallest(found: Sequence[Fault], row: Row) -> Fault:
    """The last that is confirmed of the first, of some between, and of those near the end."""
    near = [found[-(2**power)] for power in range(len(found).bit_length())]
    return next((fault for fault in near if _is_confirmed(fault, row)), found[0])


def _is_confirmed(fault: Fault, row: Row) -> bool:
    """Whether verifying the shrunk problem says so too: rounding may have taken the place of the fault."""
    rows = verify_problem(fault.problem, {row.candidate: fault.candidate}, fault.settings)
    return any(r.parameter == fault.path and r.verdict in SHOWN for r in rows)


def _others(fault: Fault, row: Row, case: Case) -> dict[str, float]:
    """What the other candidates give for this element, by label, where they run."""
    found = {}
    for label, other in case.candidates.items():
        if label == row.candidate or registry.backend(other.backend).capabilities.compiles:
            continue
        if isinstance(fault.candidate.loss, Graph) and other.loss is None and not other.is_written_by_hand:
            other = replace(other, loss=fault.candidate.loss)
        with suppress(Exception):  # one that does not take what is left of the problem
            gradient = look(replace(fault, candidate=other)).gradient
            if gradient is not None:
                found[label] = gradient
    return found


def _expect_reproduces(text: str) -> None:
    """Run the script. Raises GradwitnessError, with what it said, unless it shows the fault; then there is no file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "bug.py")
        path.write_text(text, encoding="utf-8")
        command = [sys.executable, "-P", str(path)]
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LIMIT, env=_environment()
            )
        except subprocess.TimeoutExpired:
            raise GradwitnessError(f"the script was not written: it ran for more than {LIMIT:.0f} s") from None
    if run.returncode != 1 or "reproduces" not in run.stdout:
        said = "\n".join((run.stdout + run.stderr).splitlines()[-12:])
        raise GradwitnessError(f"the script was not written, as it does not reproduce the fault on its own:\n{said}")


def _environment() -> dict[str, str]:
    """In which a Python finds the frameworks where this one did: by PYTHONPATH, or in a folder added meanwhile."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

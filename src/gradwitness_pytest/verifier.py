"""What the fixture gives: `gradwitness.verify` which fails the test where a gradient does not agree."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradwitness import Candidate, GradwitnessError, Problem, Report, verify
from gradwitness.problem import Loss
from gradwitness.writing import write_whole

__all__ = ["VerifyGradients"]

LONGEST = 150  # characters of a node id in a file's name, of which file systems take 255


class VerifyGradients:
    """The verifier of one test: call it like `gradwitness.verify`, as often as you like.

    gradients, others: the count of each verdict, on gradients, and on candidates that gave none.
    """

    def __init__(self, name: str, nodeid: str, seed: int | None = None, folder: str | None = None) -> None:
        """A test's name and node id; the seed of calls that give none; the folder in which evidence is kept."""
        self.name, self.nodeid, self.seed, self.folder = name, nodeid, seed, folder
        self.calls = 0
        self.gradients: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def __call__(
        self,
        loss: Loss | Problem | Candidate | Mapping[str, Loss | Candidate],
        params: Any = None,
        batch: Any = None,
        *,
        name: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Report:
        """The report, if at least one gradient agreed and every other is accepted. If not, the test fails with it.

        loss, params, batch and options are those of `gradwitness.verify`.
        name: what the report calls the problem, by default the test's name.
        seed: by default that of `--gradwitness-seed`.

        Raises GradwitnessError for a loss that cannot be traced, differentiated or found, and for wrong arguments.
        """
        __tracebackhide__ = True
        self.calls += 1
        try:
            drawn = self.seed if seed is None else seed
            settings = options if drawn is None else options | {"seed": drawn}
            found = verify(loss, params, batch, name=name or self._name(), **settings)
            report = replace(found, environment={**found.environment, "test": self.nodeid})
            kept = self._keep(report)
        except GradwitnessError as error:
            raise error.with_traceback(None) from None  # its message says all; the way to it is ours
        self._count(report)
        if not report:
            again = [] if seed is not None or drawn is None else [f"again with --gradwitness-seed={drawn}"]
            pytest.fail("\n".join([repr(report), *kept, *again, _place()]), pytrace=False)
        return report

    def _name(self) -> str:
        """The test's name; of its second call and later ones with their number."""
        return self.name if self.calls == 1 else f"{self.name}-{self.calls}"

    def _keep(self, report: Report) -> list[str]:
        """Write the evidence, if there is a folder for it, and say where."""
        if self.folder is None:
            return []
        path = Path(self.folder, file_name(self.nodeid, self.calls))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, report.json() + "\n")
        except OSError as error:
            raise GradwitnessError(f"--gradwitness-json: {path} cannot be written: {error.strerror}") from None
        return [f"evidence in {path}"]

    def _count(self, report: Report) -> None:
        for row in report.rows:
            (self.others if row.parameter is None else self.gradients)[str(row.verdict)] += 1


def _place() -> str:
    """Where the test called, as pytest's tracebacks end."""
    caller = sys._getframe(2)
    file = caller.f_code.co_filename
    with suppress(ValueError, OSError):  # another drive, a folder that is gone
        file = os.path.relpath(file)
    return f"{file}:{caller.f_lineno}: Failed"


def file_name(nodeid: str, call: int) -> str:
    """A name that any file system takes, of no other call: what is not plain becomes a dash, and digits of a hash
    tell apart those that look alike then.
    """
    plain = re.sub(r"[^\w.]+", "-", nodeid, flags=re.ASCII)[-LONGEST:].strip("-.")
    return f"{plain}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}-{call}.json"

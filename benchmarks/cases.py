"""What is timed: networks of the zoo at two sizes, each verified once, where and as it is timed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gradwitness import registry
from gradwitness.networks import network
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.report import Row
from gradwitness.report.findings import findings
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems

__all__ = ["CASES", "DTYPE", "Case", "absence", "prepared", "problem", "rows_of", "wrong"]

DTYPE = "float32"


@dataclass(frozen=True)
class Case:
    """A network at one size."""

    network: str
    size: str
    sizes: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """Its name in tables and options: `mlp-large`."""
        return f"{self.network}-{self.size}"

    @property
    def described(self) -> str:
        """Its name and what it is made of."""
        sizes = ", ".join(f"{key} {value}" for key, value in self.sizes) or "the zoo's own sizes"
        return f"{self.network} {self.size} ({sizes})"


def small(name: str) -> Case:
    """The zoo's own sizes: microseconds of arithmetic, so that what is timed is the framework's overhead."""
    return Case(name, "small", ())


def large(name: str, **sizes: int) -> Case:
    """So large that arithmetic takes most of the time, and small enough to be verified in a minute or two."""
    return Case(name, "large", tuple(sizes.items()))


CASES = (
    small("mlp"),
    large("mlp", batch=512, width=1024),
    small("convnet"),
    large("convnet", batch=64, channels=16),
    small("transformer"),
    large("transformer", batch=16, time=32, width=64, heads=4, depth=16, hidden=128, blocks=1),
)


@cache
def problem(case: Case) -> Problem:
    return network(case.network, **dict(case.sizes)).rounded(DTYPE)


def absence(backend: str, device: str) -> str:
    """Why the backend cannot run on the device here; empty if it can."""
    found = registry.backend(backend)
    if missing := registry.missing_modules(backend):
        return f"{backend} needs {', '.join(missing)}, which is not installed: {found.capabilities.install}"
    devices = found.devices()
    return "" if device in devices else f"{backend} does not run on {device} here (it has {', '.join(devices)})"


@cache
def prepared(case: Case, backend: str, device: str) -> Prepared:
    """Ready to be timed. Ask for it before `rows_of`: preparing a second time finds what the first has compiled."""
    with registry.backend(backend).precision("highest"):
        return registry.backend(backend).prepare(Candidate(backend), problem(case), dtype=DTYPE, device=device)


@cache
def rows_of(case: Case, backends: tuple[str, ...], device: str) -> tuple[Row, ...]:
    """The verdicts on all these backends' gradients: the evidence, which takes longest, is gathered once for all."""
    settings = Settings(dtypes=(DTYPE,), devices=(device,), reference="differences")  # in 256 bits it takes minutes
    return verify_problems([(problem(case), backends)], settings).rows


def wrong(rows: tuple[Row, ...], backend: str) -> list[str]:
    """Why the backend is not to be timed, a line each; none if each of its gradients agrees."""
    own = [row for row in rows if row.backend == backend]
    return findings(row for row in own if row.verdict is not Verdict.AGREE) or ([] if own else ["not verified"])

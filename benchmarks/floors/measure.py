"""Errors of right gradients, in noise floors: every network of the zoo, several seeds, dtypes and backends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gradwitness import registry
from gradwitness.networks import NETWORKS, network
from gradwitness.report import Row
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems

__all__ = ["BINS_PER_DECADE", "LARGE", "Histogram", "measured"]

BINS_PER_DECADE = 10
LARGE = 16  # elements of a tensor from which on its norm is an average
PASSING = (Verdict.AGREE, Verdict.INCONCLUSIVE, Verdict.CONVENTION)


@dataclass
class Histogram:
    """Of error / floor by norm, for the tensors of one dtype, one backend and one class of sizes.

    counts: by bin, the exponent of 10 times BINS_PER_DECADE, rounded down; zeros and the zero by structure included.
    exact: tensors with no error at all. verdicts: how often each. cells: network x seed. use: the largest part of
    its threshold that any tensor took, by norm or by element.
    """

    dtype: str
    backend: str
    large: bool
    counts: Counter[int] = field(default_factory=Counter)
    exact: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    use: float = 0.0
    largest: float = 0.0

    def add(self, row: Row) -> None:
        self.verdicts[str(row.verdict)] += 1
        if row.error is None or not row.floor:
            return
        ratio = row.error / row.floor
        self.largest = max(self.largest, ratio)
        self.use = max(self.use, row.ratio or 0.0)
        if ratio:
            self.counts[math.floor(math.log10(ratio) * BINS_PER_DECADE)] += 1
        else:
            self.exact += 1

    def share(self, low: float, high: float) -> float:
        """The part of all tensors with low <= error / floor < high, both at the edges of bins."""
        first, last = (round(math.log10(x) * BINS_PER_DECADE) for x in (low, high))
        inside = sum(n for place, n in self.counts.items() if first <= place < last)
        return inside / max(sum(self.counts.values()) + self.exact, 1)

    def as_json(self) -> dict[str, Any]:
        counts = {str(place): n for place, n in sorted(self.counts.items())}
        return asdict(self) | {"counts": counts, "verdicts": dict(self.verdicts)}

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Histogram:
        counts = Counter({int(place): n for place, n in given["counts"].items()})
        return cls(**(given | {"counts": counts, "verdicts": Counter(given["verdicts"])}))


def measured(
    dtypes: Sequence[str], seeds: int, *, networks: Sequence[str] = tuple(NETWORKS), progress: Callable[[str], None]
) -> tuple[list[Histogram], int, list[str]]:
    """(the histograms, how many cells there were, the alarms): a cell is network x seed x backend x dtype."""
    found: dict[tuple[str, str, bool], Histogram] = {}
    cells, alarms = 0, list[str]()
    for dtype in dtypes:
        backends = [b for b in _direct() if dtype in registry.backend(b).capabilities.dtypes]
        for seed in range(seeds):
            progress(f"{dtype}, seed {seed}")
            for name in networks:
                report = verify_problems([(network(name, seed=seed), backends)], Settings(dtypes=(dtype,), seed=seed))
                cells += len(backends)
                for row in report.rows:
                    large = math.prod(row.shape or ()) >= LARGE
                    histogram = found.setdefault((dtype, row.backend, large), Histogram(dtype, row.backend, large))
                    histogram.add(row)
                    if row.verdict not in PASSING:
                        alarms.append(f"{row.network} seed {seed} {dtype} {row.backend} {row.parameter}: {row.verdict}")
    return list(found.values()), cells, alarms


def _direct() -> list[str]:
    return [name for name in registry.backend_names() if not registry.backend(name).capabilities.compiles]

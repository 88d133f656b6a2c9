"""The verdicts as a matrix, network by candidate and dtype, each cell with what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from gradwitness.dtypes import DTYPES
from gradwitness.report.figures import error, relative, who, worst
from gradwitness.report.page.marks import MARKS, Mark
from gradwitness.report.row import Row
from gradwitness.report.table import counted
from gradwitness.verdict import ACCEPTED, Verdict

__all__ = ["Matrix", "matrix"]

MOST = 12  # columns of a table; of more, each network is a block
FEW = 4  # cells that are open at first, if there are no more that are to be read


@dataclass(frozen=True)
class Tensor:
    """One gradient, as texts. used: how much of what rounding may reach its error is, in percent."""

    name: str
    shape: str
    error: str
    used: int | None
    used_text: str
    floor: str
    ulps: str
    limit: str
    differences: str
    verdict: Verdict
    mark: Mark
    said: str


@dataclass(frozen=True)
class Cell:
    """A candidate in one dtype: its worst verdict, where and how large that is, and every tensor.

    column, line: which of all candidates it is, and which of its network's. dtype_column: which dtype.
    """

    candidate: str
    dtype: str
    column: int
    line: int
    dtype_column: int
    verdict: Verdict
    mark: Mark
    figure: str
    place: str
    facts: Sequence[str]
    tensors: Sequence[Tensor]
    is_open: bool


@dataclass(frozen=True)
class Network:
    """A row of the matrix."""

    name: str
    candidates: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Matrix:
    """form: how it is laid out where there is room, a class of style.css: "table" or "blocks"."""

    candidates: Sequence[str]
    dtypes: Sequence[str]
    networks: Sequence[Network]
    legend: Sequence[tuple[Verdict, Mark]]

    @property
    def form(self) -> str:
        return "table" if len(self.candidates) * len(self.dtypes) <= MOST else "blocks"


def matrix(rows: Sequence[Row], passes: Callable[[Row], bool]) -> Matrix:
    """Of all rows; what does not pass is open, if it is little."""
    candidates = list(dict.fromkeys(map(who, rows)))
    dtypes = sorted({row.dtype for row in rows}, key=list(DTYPES).index)
    cells: dict[str, dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        cells.setdefault(row.network, {}).setdefault((who(row), row.dtype), []).append(row)
    wrong = sum(not all(map(passes, cell)) for network in cells.values() for cell in network.values())
    networks = []
    for name, network in cells.items():
        ours = [candidate for candidate in candidates if any(candidate == of for of, _ in network)]
        places = sorted(network, key=lambda place: (candidates.index(place[0]), dtypes.index(place[1])))
        shown = [
            _cell(
                network[place],
                column=candidates.index(place[0]),
                line=ours.index(place[0]),
                dtype_column=dtypes.index(place[1]),
                is_open=wrong <= FEW and not all(map(passes, network[place])),
            )
            for place in places
        ]
        networks.append(Network(name, ours, shown))
    found = {row.verdict for row in rows}
    return Matrix(candidates, dtypes, networks, [(verdict, MARKS[verdict]) for verdict in Verdict if verdict in found])


def _cell(rows: Sequence[Row], **place: Any) -> Cell:
    gravest = worst(rows)
    ordered = sorted(rows, key=lambda row: row.verdict in ACCEPTED)
    return Cell(
        candidate=who(gravest),
        dtype=gravest.dtype,
        verdict=gravest.verdict,
        mark=MARKS[gravest.verdict],
        figure=error(gravest).removesuffix(" floors"),
        place=_place(gravest),
        facts=list(_facts(rows)),
        tensors=[_tensor(row) for row in ordered if row.parameter is not None],
        **place,
    )


def _place(row: Row) -> str:
    """What follows the figure of a cell that is open."""
    floors = "floors, " if error(row).endswith(" floors") else ""
    return f"{floors}in {row.parameter}" if row.parameter is not None else ""


def _facts(rows: Sequence[Row]) -> Iterator[str]:
    """What is known of the candidate as a whole, or alike of all of its tensors."""
    first = rows[0]
    if first.setup_seconds is not None:
        yield f"made ready in {first.setup_seconds:.2g} s"
    if first.textbook is not None:
        yield f"relative difference of all tensors at step 1e-5: {first.textbook:.0e}"
    yield from dict.fromkeys(row.message for row in rows if row.parameter is None and row.message)
    if first.captured:
        yield f"judged by the graph of its own loss ({counted(first.captured, 'op')})"
    if first.not_captured:
        yield f"judged by the values of its own loss: {first.not_captured}"
    if first.against:
        yield f"error is the distance from the gradient of {first.against}"
    if first.fd_dtype:
        yield f"differences were taken in {first.fd_dtype}"
    for name, ran in (first.custom or {}).items():
        yield f"custom rule {name} {'ran' if ran else 'did not run'}"
    yield from dict.fromkeys(f"no reference in 256 bits: {row.refused}" for row in rows if row.refused)
    yield from first.remarks


def _tensor(row: Row) -> Tensor:
    return Tensor(
        name=row.parameter or "",
        shape=" × ".join(map(str, row.shape or ())) or "scalar",
        error=error(row),
        used=None if row.ratio is None or isnan(row.ratio) else round(100 * min(row.ratio, 1.0)),
        used_text="" if row.ratio is None else f"{row.ratio:.0%}" if row.ratio < 10 else f"{row.ratio:.1g}×",
        floor=relative(row, row.floor),
        ulps="" if row.ulps is None else f"{row.ulps:.2g}",
        limit=relative(row, row.limit),
        differences=_differences(row),
        verdict=row.verdict,
        mark=MARKS[row.verdict],
        said="\n".join(_said(row)),
    )


def _differences(row: Row) -> str:
    bound = relative(row, row.fd_bound)
    return f"{relative(row, row.fd_error)} ± {bound}" if bound else relative(row, row.fd_error)


def _said(row: Row) -> Iterator[str]:
    """What a tensor has beside the figures that all have."""
    if row.message:
        yield row.message
    if row.left is not None and row.right is not None:
        yield f"derivatives on both sides: {row.left:.6g} and {row.right:.6g}"
    if row.factor is not None:
        yield f"averages would have shown a constant factor of {1 + row.factor:.5g}"
    if row.seen is not None:
        unseen = f", and could not see {row.unseen}" if row.unseen else ""
        yield f"differences saw {row.seen} elements one by one{unseen}"

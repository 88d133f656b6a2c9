"""The limit of a machine: its matmul rate and its copy bandwidth, and the least seconds that a network takes there.

The model is the roofline of Williams, Waterman and Patterson (Communications of the ACM 52(4), 2009): a computation
takes at least flops / rate seconds, and at least bytes / bandwidth seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradwitness import ops, registry
from gradwitness.graph import Graph, Node
from gradwitness.ops import find_op
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Prepared
from gradwitness.timing.calls import seconds

__all__ = ["Machine", "Rates", "Work", "work"]

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # of a number
LONG = 0.01  # seconds that a product must take for its rate to count
SIDES = (128, 256, 512, 1024, 2048, 4096)  # of the square matrices that are tried, until one takes so long
COPIED = 2**27  # bytes: more than caches hold
TIMES = 5  # that each is tried, of which the best counts


@dataclass(frozen=True)
class Work:
    """What one phase of a network takes at least. flops: additions and multiplications; bytes: read and written."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Rates:
    """What a machine does at best, in one dtype, with the threads that the candidates have.

    flops: per second, in a large product of matrices, by the fastest library of those timed. bytes: per second, read
    and written, in a copy of memory.
    """

    flops: float
    bytes: float

    def least(self, work: Work) -> float:
        """The seconds that it cannot take less than."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


def work(graph: Graph, problem: Problem, dtype: str) -> dict[str, Work]:
    """That of each phase, by the shapes of the graph's elementary ops.

    A term of a contraction is two flops, an element of any other result one, a copy or a comparison none. Backward, a
    contraction sends a contraction of as many terms to each factor that is differentiated (Griewank and Walther,
    "Evaluating Derivatives", 2nd ed., chapter 4, bound the whole by such counts). Borders of a convolution count as if
    they were inside.

    The least bytes are those that no cache saves: each leaf read once, and backward each gradient written once.
    """
    elementary = graph.decomposed()
    active = elementary.active(problem.differentiated)
    nodes = [node for node in elementary.nodes if node.is_op]
    there = float(sum(_forward(node) for node in nodes))
    back = float(sum(_backward(node, active) for node in nodes if node.id in active))
    width = BYTES[dtype]
    read = sum(_bytes(leaf, width) for leaf in graph.leaves.values())
    written = sum(_bytes(leaf, width) for path, leaf in graph.leaves.items() if path in problem.differentiated)
    return {
        "forward": Work(there, read),
        "backward": Work(back, read + written),
        "forward_backward": Work(there + back, read + written),
    }


def _bytes(leaf: Node, width: int) -> int:
    return int(math.prod(leaf.spec.shape)) * (width if leaf.spec.dtype == "float" else 8)


def _forward(node: Node) -> float:
    return _flops(find_op(node.op).rounding.value, node, _size(node))  # type: ignore[union-attr]  # elementary


def _backward(node: Node, active: frozenset[int]) -> float:
    """What it sends to its operands."""
    rounding = find_op(node.op).rounding
    assert rounding is not None  # the graph is elementary
    sent = [i for i in node.inputs if i is not None and i.id in active]
    return sum(_flops(rounding.cotangent, node, _size(i)) for i in sent)


def _flops(rounding: str, node: Node, size: int) -> float:
    """By what it does to numbers, as the vocabulary has it."""
    if rounding == "contraction":
        return 2.0 * _terms(node)
    if rounding == "sum":
        return float(max(size, _size(node), *(_size(i) for i in node.inputs if i is not None)))
    return 0.0 if rounding == "exact" else float(size)


def _size(node: Node) -> int:
    return math.prod(node.spec.shape) if hasattr(node.spec, "shape") else 0


def _terms(node: Node) -> int:
    """Products in a contraction."""
    return _size(node) * TERMS[node.op](node)


def _shape(node: Node, operand: int) -> tuple[int, ...]:
    found = node.inputs[operand]
    assert found is not None
    return tuple(found.spec.shape)


TERMS: Mapping[str, Callable[[Node], int]] = {  # of each element of the result
    "matmul": lambda node: _shape(node, 0)[-1],
    "conv2d": lambda node: math.prod(_shape(node, 1)[1:]),
}


class Asked(Protocol):
    """A process that can be asked to run a function of its Prepared."""

    def apply(self, function: Callable[..., Any], *args: Any) -> Any: ...


class Machine:
    """The rates of this machine, each measured once, in the processes of candidates."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._flops: dict[tuple[str, str, str], float] = {}  # per second, by backend, dtype and device
        self._bytes = 0.0

    def ask(self, process: Asked, backend: str, dtype: str, device: str) -> None:
        """Measure what is not yet known, and can be learned in the process of a candidate of this backend."""
        if (backend, dtype, device) not in self._flops:
            self._flops[backend, dtype, device] = process.apply(matmul_rate, backend, dtype, device)
        if device == "cpu" and not self._bytes:
            self._bytes = process.apply(copy_rate, self.threads)

    def flops(self, backend: str, dtype: str, device: str) -> float:
        """Those per second of one backend; 0 where they are not known."""
        return self._flops.get((backend, dtype, device), 0.0)

    def rates(self, dtype: str, device: str) -> Rates | None:
        """Those of the fastest backend. None where they are not known, as the bandwidth of a GPU."""
        flops = max((self.flops(backend, dtype, device) for backend, *_ in self._flops), default=0.0)
        return Rates(flops, self._bytes) if device == "cpu" and flops and self._bytes else None


def matmul_rate(prepared: Prepared, backend: str, dtype: str, device: str) -> float:
    """Flops per second of a backend in a square product, in this process; 0 where it compiles first."""
    if registry.backend(backend).capabilities.compiles:
        return 0.0
    rate = 0.0
    for side in SIDES:
        x = np.random.default_rng(0).standard_normal((side, side))
        problem = Problem("matmul", _product, {"x": x}, {"y": x}).rounded(dtype)
        ready = registry.backend(backend).prepare(Candidate(backend), problem, dtype=dtype, device=device)
        took = min(seconds(ready, ready.place(problem.primals), "forward", TIMES))
        rate = max(rate, 2 * side**3 / took)
        if took > LONG:
            break
    return rate


def _product(params: Any, batch: Any) -> Any:
    """With a sum of squares, which takes little beside it. Of a plain sum a compiler would not need the product."""
    product = ops.matmul(params["x"], batch["y"])
    return (product * product).sum()


def copy_rate(prepared: Prepared, threads: int) -> float:
    """Bytes per second, read and written, in a copy by so many threads (as in McCalpin's STREAM)."""
    parts = [np.ones(COPIED // threads, np.uint8) for _ in range(threads)]
    into = [np.empty_like(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:

        def once() -> float:
            started = time.perf_counter()
            list(pool.map(np.copyto, into, parts))
            return time.perf_counter() - started

        once()  # the pages are there from now on
        return 2 * COPIED / min(once() for _ in range(TIMES))

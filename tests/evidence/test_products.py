"""The sizes of matrix products: those that are foretold are those that torch asks its library for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradwitness import ops, registry, trace
from gradwitness.arithmetic import ONEDNN, Product, Sizes
from gradwitness.evidence.products import products
from tests.evidence.reduced import by_onednn

aten = torch.ops.aten


class Asked(TorchDispatchMode):
    """Takes down the sizes of each matrix product inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = function.overloadpacket
        if packet in (aten.mm, aten.addmm):
            a, b = args[-2:]
            self.products.append(stored_by_rows(a.shape[0], a.shape[1], b.shape[1]))
        elif packet is aten.mv:
            self.products.append(Product(args[0].shape[0], args[0].shape[1], 1))
        elif packet is aten.dot:
            self.products.append(Product(1, args[0].shape[0], 1))
        elif packet is aten.bmm:
            a, b = args
            self.products.append(Product(a.shape[1], a.shape[2], b.shape[2], batch=a.shape[0]))
        return function(*args, **(kwargs or {}))


def stored_by_rows(rows: int, inner: int, columns: int) -> Product:
    return Product(1, inner, rows) if columns == 1 else Product(rows, inner, columns)


Shape = tuple[int, ...]
CASES: dict[str, tuple[Callable[..., Any], Shape, Shape]] = {
    "matrices": (ops.matmul, (3, 4), (4, 5)),
    "a layer": (ops.linear, (3, 4), (5, 4)),
    "a layer with one output": (ops.linear, (3, 4), (1, 4)),
    "a layer over time": (ops.linear, (2, 3, 4), (5, 4)),
    "x transposed": (lambda x, y: ops.transpose(x) @ y, (4, 3), (4, 5)),
    "both transposed": (lambda x, y: ops.transpose(x) @ ops.transpose(y), (4, 3), (5, 4)),
    "a column": (ops.matmul, (3, 4), (4, 1)),
    "a row": (ops.matmul, (1, 4), (4, 5)),
    "a matrix by a vector": (ops.matmul, (3, 4), (4,)),
    "a vector by a matrix": (ops.matmul, (4,), (4, 5)),
    "vectors": (ops.matmul, (4,), (4,)),
    "a batch by a matrix": (ops.matmul, (2, 3, 4), (4, 5)),
    "a batch by a vector": (ops.matmul, (2, 3, 4), (4,)),
    "a matrix by a batch": (ops.matmul, (3, 4), (2, 4, 5)),
    "a transposed matrix by a batch": (lambda x, y: ops.transpose(x) @ y, (4, 3), (2, 4, 5)),
    "a vector by a batch": (ops.matmul, (4,), (2, 4, 5)),
    "batches": (ops.matmul, (2, 3, 4), (2, 4, 5)),
    "batches that broadcast": (ops.matmul, (2, 1, 3, 4), (6, 4, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_products_foretold_are_those_that_torch_asks_for(name: str) -> None:
    function, x, y = CASES[name]
    graph = trace(lambda p, b: ops.tanh(function(p["x"], p["y"])).sum(), {"x": np.ones(x), "y": np.ones(y)}, {})
    found = [p for node in graph.decomposed().nodes for p in products(node) if p is not None]
    leaves = {path: torch.ones(shape, requires_grad=True) for path, shape in (("x", x), ("y", y))}
    with Asked() as asked:
        registry.backend("torch").lower(graph)(leaves).backward()
    # an outer product is made elementwise, or by vectors; no library takes trouble over so few terms
    outer = [p for p in (*found, *asked.products) if p.inner == 1 and p.batch is None]
    assert Counter(found) - Counter(outer) == Counter(asked.products) - Counter(outer)
    assert asked.products


def test_a_sum_of_vectors_and_a_convolution_are_no_matrix_products() -> None:
    graph = trace(lambda p, b: ops.conv2d(p, b).sum(), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    assert {p for node in graph.decomposed().nodes for p in products(node)} == {None}


@pytest.mark.parametrize("rows", [1, 7, 8, 32, 33, 300])
@pytest.mark.parametrize("inner", [1, 16, 17, 64])
@pytest.mark.parametrize("columns", [2, 8, 9, 256])
@pytest.mark.parametrize("batch", [None, 2])
def test_the_table_says_what_onednn_does(rows: int, inner: int, columns: int, batch: int | None) -> None:
    """In the emulation the rule is written a second time, on tensors."""
    leading = () if batch is None else (batch,)
    a, b = torch.empty(*leading, rows, inner), torch.empty(*leading, inner, columns)
    assert ONEDNN.include(Product(rows, inner, columns, batch)) is by_onednn(
        aten.mm if batch is None else aten.bmm, a, b
    )


def test_batches_may_be_left_out() -> None:
    sizes = Sizes(16**3, rows=8, inner=16, few=32, results=256, batched=False)
    assert sizes.include(Product(64, 64, 64))
    assert not sizes.include(Product(64, 64, 64, batch=2))

"""From a graph to a callable native to a framework: its source, executed over the framework's own ops."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from gradwitness.errors import UnsupportedError
from gradwitness.graph import Graph

__all__ = ["lower"]

_serial = count()


def lower(graph: Graph, functions: Mapping[str, Callable[..., Any]]) -> Callable[[Mapping[str, Any]], Any]:
    """`loss(leaves) -> scalar`, in which op `name` is `functions[name]`.

    `leaves` maps each path of `graph.leaves` to the framework's own array. Straight-line code, so
    that a framework's compiler sees what a user would have written. Raises UnsupportedError naming
    the ops that `functions` lacks.
    """
    lacking = [name for name in graph.op_names if name not in functions]
    if lacking:
        raise UnsupportedError(f"ops that this backend lacks: {', '.join(lacking)}")
    source = graph.source()
    filename = f"<gradwitness graph {next(_serial)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    namespace: dict[str, Any] = {name: functions[name] for name in graph.op_names}
    namespace |= {"inf": math.inf, "nan": math.nan}
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102  # our own source: Graph.source() wrote it
    loss: Callable[[Mapping[str, Any]], Any] = namespace["loss"]
    return loss

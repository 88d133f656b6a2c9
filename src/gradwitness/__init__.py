"""gradwitness: is this gradient right, and if not, who is wrong, where, and why?

What is here is imported when it is first asked for, so that the command starts, and ends, at once.
"""

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwitness import ops as ops
    from gradwitness.capturing import capture
    from gradwitness.closeness import assert_gradients_close
    from gradwitness.diagnosis import Health, health
    from gradwitness.errors import GradwitnessError
    from gradwitness.findings import Finding
    from gradwitness.graph import Graph, trace
    from gradwitness.own_ops import define_op, forget_op, verify_op
    from gradwitness.port import verify_port
    from gradwitness.problem import Candidate, Problem
    from gradwitness.registry import register_backend
    from gradwitness.report import Report, Row
    from gradwitness.timing import Benchmark, Timing, benchmark
    from gradwitness.verdict import Verdict
    from gradwitness.verification import verify
    from gradwitness.watching import Watch, watch

    __version__: str

__all__ = [
    "Benchmark",
    "Candidate",
    "Finding",
    "GradwitnessError",
    "Graph",
    "Health",
    "Problem",
    "Report",
    "Row",
    "Timing",
    "Verdict",
    "Watch",
    "__version__",
    "assert_gradients_close",
    "benchmark",
    "capture",
    "define_op",
    "forget_op",
    "health",
    "ops",
    "register_backend",
    "trace",
    "verify",
    "verify_op",
    "verify_port",
    "watch",
]

_PLACES = {  # the module of each name
    "Benchmark": "timing",
    "Candidate": "problem",
    "Finding": "findings",
    "GradwitnessError": "errors",
    "Graph": "graph",
    "Health": "diagnosis",
    "Problem": "problem",
    "Report": "report",
    "Row": "report",
    "Timing": "timing",
    "Verdict": "verdict",
    "Watch": "watching",
    "assert_gradients_close": "closeness",
    "benchmark": "timing",
    "capture": "capturing",
    "define_op": "own_ops",
    "forget_op": "own_ops",
    "health": "diagnosis",
    "register_backend": "registry",
    "trace": "graph",
    "verify": "verification",
    "verify_op": "own_ops",
    "verify_port": "port",
    "watch": "watching",
}


_ADAPTERS = {"from_module": "gradwitness_torch", "from_pytree": "gradwitness_jax"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version(__name__)
    if name not in _PLACES and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    if name not in _PLACES:
        place = f"it is in {_ADAPTERS[name]}" if name in _ADAPTERS else f"it has {', '.join(__all__)}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {place}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__

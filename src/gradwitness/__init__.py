"""gradwitness: is this gradient right, and if not, who is wrong, where, and why?"""

from typing import TYPE_CHECKING, Any

from gradwitness import ops
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph, trace
from gradwitness.own_ops import define_op, forget_op, verify_op
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import register_backend
from gradwitness.report import Report, Row
from gradwitness.verdict import Verdict
from gradwitness.verification import verify

if TYPE_CHECKING:
    from gradwitness.port import verify_port

__all__ = [
    "Candidate",
    "GradwitnessError",
    "Graph",
    "Problem",
    "Report",
    "Row",
    "Verdict",
    "define_op",
    "forget_op",
    "ops",
    "register_backend",
    "trace",
    "verify",
    "verify_op",
    "verify_port",
]


def __getattr__(name: str) -> Any:
    """`verify_port`, whose package is imported when it is asked for, so that importing this one is quick."""
    if name != "verify_port":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gradwitness.port import verify_port

    return verify_port

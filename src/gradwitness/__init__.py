"""gradwitness: is this gradient right, and if not, who is wrong, where, and why?"""

from gradwitness import ops
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph, trace
from gradwitness.own_ops import define_op, forget_op, verify_op
from gradwitness.port import verify_port
from gradwitness.problem import Candidate, Problem
from gradwitness.registry import register_backend
from gradwitness.report import Report, Row
from gradwitness.verdict import Verdict
from gradwitness.verify import verify

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

"""gradwitness: is this gradient right, and if not, who is wrong, where, and why?"""

from gradwitness import ops
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph, trace
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Report, Row
from gradwitness.verdict import Verdict
from gradwitness.verify import verify

__all__ = ["Candidate", "GradwitnessError", "Graph", "Problem", "Report", "Row", "Verdict", "ops", "trace", "verify"]

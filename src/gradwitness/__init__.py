"""gradwitness: is this gradient right, and if not, who is wrong, where, and why?"""

from gradwitness import ops
from gradwitness.graph import Graph, trace
from gradwitness.problem import Candidate, Problem

__all__ = ["Candidate", "Graph", "Problem", "ops", "trace"]

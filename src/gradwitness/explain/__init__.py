"""A whole pass, number by number: every value going forward, every cotangent coming back, a step downhill."""

from gradwitness.explain.descent import Descent
from gradwitness.explain.explanation import Explanation, explain
from gradwitness.explain.publication import Comparison
from gradwitness.explain.walk import Edge, Term, Visit

__all__ = ["Comparison", "Descent", "Edge", "Explanation", "Term", "Visit", "explain"]

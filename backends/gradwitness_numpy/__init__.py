"""Hand-derived NumPy backprop: a forward and a vjp for every op, and the reverse sweep."""

from gradwitness_numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]

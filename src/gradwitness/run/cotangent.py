"""Weights for the elements of a loss that returns an array: drawn at random, once its shape is known.

Random ones, and not ones: the elements of a softmax add up to 1 whatever its inputs, so that a backward of zeros would
pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.errors import GradwitnessError, NotOneNumberError
from gradwitness.problem import COTANGENT, Candidate, Problem
from gradwitness.run.preparing import prepare
from gradwitness.settings import Settings

__all__ = ["with_random_cotangent"]

RANDOM = "random"


def with_random_cotangent(problem: Problem, candidates: Iterable[Candidate], settings: Settings) -> Problem:
    """The problem with standard normal weights for what its loss returns; without any if that is one number.

    Raises GradwitnessError for any other word than "random".
    """
    if problem.cotangent != RANDOM:
        raise GradwitnessError(f'{COTANGENT} must be "random" or an array, got {problem.cotangent!r}')
    problem = replace(problem, cotangent=None)
    shape = _shape(problem, candidates, settings)
    weights = None if shape is None else _drawn(shape, np.random.default_rng([settings.seed, 8]))
    return replace(problem, cotangent=weights)


def _drawn(shape: Any, rng: np.random.Generator) -> Any:
    """Weights of this shape, or of these, nested as they are."""
    if isinstance(shape, dict):
        return {key: _drawn(part, rng) for key, part in shape.items()}
    return [_drawn(part, rng) for part in shape] if isinstance(shape, list) else rng.standard_normal(shape)


def _shape(problem: Problem, candidates: Iterable[Candidate], settings: Settings) -> Any:
    """Of what the loss returns, unless that is one number: asked of the trace, or of the first candidate that runs."""
    if problem.loss is not None:
        try:
            problem.graph  # noqa: B018  # it is the tracing that tells
        except NotOneNumberError as error:
            return error.shape
        return None
    direct_first = sorted(candidates, key=lambda c: registry.backend(c.backend).capabilities.compiles)
    for dtype in dict.fromkeys((*problem.own_dtypes, *settings.dtypes)):  # a loss may run in one dtype only
        for candidate in direct_first:
            try:
                prepare(candidate, problem, dtype, "cpu", settings).value(problem.primals)
            except NotOneNumberError as error:
                return error.shape
            except Exception:  # noqa: BLE001  # it will be an error in its row; another one may tell
                continue
            return None
    return None

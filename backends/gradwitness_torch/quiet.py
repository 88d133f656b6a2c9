"""Silence while torch loads and compiles: its warnings are not about the candidate."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

LOGGERS = ("torch", "torch._dynamo", "torch._inductor", "torch._functorch")


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and no log records below errors, from the framework."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

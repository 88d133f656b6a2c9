"""Ports from torch to jax: which parameter is which, whether values and gradients agree, and what makes them differ."""

from gradwitness.port.layouts import Layout, flattened
from gradwitness.port.report import PortReport
from gradwitness.port.run import verify_port

__all__ = ["Layout", "PortReport", "flattened", "verify_port"]

"""The `gradwitness` command: a module for each command, and what they have in common."""

from gradwitness.cli import bench, compare, explain, health, listing, verify
from gradwitness.cli.group import cli

__all__ = ["bench", "cli", "compare", "explain", "health", "listing", "verify"]

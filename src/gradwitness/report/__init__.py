"""What a run found: `Report`, as a table, a short text, or JSON."""

from gradwitness.report.report import Report, joined
from gradwitness.report.row import Row

__all__ = ["Report", "Row", "joined"]

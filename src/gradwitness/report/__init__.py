"""What a run found: `Report`, as a table, a short text, or JSON."""

from gradwitness.report.case import Case
from gradwitness.report.report import Report, joined
from gradwitness.report.row import Row

__all__ = ["Case", "Report", "Row", "joined"]

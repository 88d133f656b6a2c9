"""What a run found: `Report`, as a table, a short text, or JSON."""

from gradwitness.report.case import Case
from gradwitness.report.reading import report_of
from gradwitness.report.report import Report, joined, joined_environments
from gradwitness.report.row import Address, Row

__all__ = ["Address", "Case", "Report", "Row", "joined", "joined_environments", "report_of"]

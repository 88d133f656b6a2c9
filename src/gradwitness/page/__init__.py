"""How a page looks, whatever is on it: one file of HTML with everything that it needs, and no script."""

from gradwitness.page.document import Page, Section, expect_installed

__all__ = ["Page", "Section", "expect_installed"]

"""What the literature says of gradients' cost, held against this machine: `gradwitness bench --claims`."""

from gradwitness.claims.page import claims_page
from gradwitness.claims.table import CLAIMS, Claim
from gradwitness.claims.tested import Tested, claims_json, claims_table, put_to_test, tested

__all__ = ["CLAIMS", "Claim", "Tested", "claims_json", "claims_page", "claims_table", "put_to_test", "tested"]

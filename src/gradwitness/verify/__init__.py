"""The run: problems and candidates give a Report."""

from gradwitness.verify.run import expect_devices, verify, verify_problem, verify_problems
from gradwitness.verify.settings import Settings

__all__ = ["Settings", "expect_devices", "verify", "verify_problem", "verify_problems"]

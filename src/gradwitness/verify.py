"""The old name of a package: its names are elsewhere, and `gradwitness.verify` is the function alone."""

raise ImportError(
    "the package gradwitness.verify is gradwitness.run now: Settings is in gradwitness.settings, expect_devices and "
    "verify_problems in gradwitness.verification, verify_problem in gradwitness.run.problems; verify itself is "
    "gradwitness.verify",
    name=__name__,
)

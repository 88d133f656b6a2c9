"""`nox -s upgrade`: the proposed environment is the pinned one, but for the packages that are named."""

from __future__ import annotations

from noxfile import CONSTRAINTS, repinned


def test_only_what_is_named_has_another_version() -> None:
    pins = CONSTRAINTS.read_text("utf-8")
    found = repinned(pins, ["jax==0.0.1", "ml-dtypes==0.0.2", "another==3"])
    new = set(found.splitlines()) - set(pins.splitlines())
    gone = set(pins.splitlines()) - set(found.splitlines())
    assert new == {"jax==0.0.1", "ml-dtypes==0.0.2", "another==3"}
    assert {line.partition("==")[0] for line in gone} == {"jax", "ml_dtypes"}

"""Published against computed: the wrong digit is found by comparing, the reason by trying the slips of a hand."""

from __future__ import annotations

import pytest

from gradwitness.explain import Comparison, explain
from gradwitness.networks import PUBLISHED, network
from gradwitness.published import Printed, PrintedNumber, PrintedRatio, WrongDigit, rounded, wrong_digit
from tests.explain.truth import GRADIENTS, LOSS

ROUNDED, CUT = "rounded to 4 decimals at every step", "cut off after 4 decimals"


def compared(*claims: Printed) -> tuple[Comparison, ...]:
    return explain(network("article"), published=claims).published


@pytest.mark.parametrize(
    ("row", "printed", "right", "wrong", "computed", "why"),
    [
        (0, "0.4038", "0.4039", WrongDigit(4, "8", "9"), LOSS, f"{ROUNDED} or {CUT}"),
        (1, "-0.4963", "-0.4964", WrongDigit(4, "3", "4"), GRADIENTS["output.weight"][0][1], CUT),
        (2, "0.0334", "0.0333", WrongDigit(4, "4", "3"), GRADIENTS["hidden.weight"][0][1], ROUNDED),
        (3, "0.0534", "0.0533", WrongDigit(4, "4", "3"), GRADIENTS["hidden.weight"][1][1], ROUNDED),
    ],
)
def test_each_wrong_digit_is_named(
    row: int, printed: str, right: str, wrong: WrongDigit, computed: float, why: str
) -> None:
    found = compared(*PUBLISHED["article"])[row]
    assert (found.printed, found.right, found.wrong, found.why) == (printed, right, wrong, why)
    assert list(found.computed) == pytest.approx([computed], rel=1e-12)


def test_the_range_of_ratios_is_corrected_and_said_where_it_holds() -> None:
    found = compared(*PUBLISHED["article"])[4]
    assert (found.printed, found.right, found.wrong) == ("5 to 10", "6.8 to 14.9", None)
    assert found.why == (
        "4 of 8 ratios are in that range: every one to hidden.weight at [1, 0], [1, 1], not those at [0, 0], [0, 1]"
    )


def test_what_is_right_is_called_right() -> None:
    number, ratio = compared(
        PrintedNumber("loss", "0.4039"), PrintedRatio("ratio", ("6", "15"), "output.weight", "hidden.weight")
    )
    assert (number.wrong, number.why) == (None, "")
    assert ratio.why == ""


def test_what_no_slip_gives_stays_unexplained() -> None:
    (found,) = compared(PrintedNumber("dL/db", "-0.0192", "hidden.bias", (0,)))
    assert found.wrong == WrongDigit(2, "1", "8")
    assert found.why == "unexplained"


@pytest.mark.parametrize(
    ("printed", "right", "wrong"),
    [
        ("0.0333", "0.0333", None),
        ("0.0433", "0.0333", WrongDigit(2, "4", "3")),
        ("1.5", "0.5", WrongDigit(0, "1", "0")),
        ("0.5", "-0.5", WrongDigit(-1, " ", "-")),
        ("12.5", "2.5", WrongDigit(-1, "1", " ")),
        ("17", "18", WrongDigit(0, "7", "8")),
    ],
)
def test_the_first_digit_that_differs(printed: str, right: str, wrong: WrongDigit | None) -> None:
    assert wrong_digit(printed, right) == wrong


def test_rounding_is_of_the_exact_value() -> None:
    assert rounded(0.5, 0) == "0"
    assert rounded(2.675, 2) == "2.67"  # the double lies below 2.675

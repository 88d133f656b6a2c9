"""The worked example's values, to sixteen decimals: what every way of computing them is held against."""

from __future__ import annotations

from typing import Any

Z = [0.17, 0.21]
H = [0.5423979407743504, 0.5523079095743253]
Y = 0.1012668034374428
LOSS = 0.4038606793017760
BY_Y = -0.8987331965625572
GRADIENTS: dict[str, Any] = {
    "hidden.weight": [[-0.0446135498968531, 0.0333336389399910], [-0.0713816798349649, 0.0533338223039855]],
    "hidden.bias": [-0.0892270997937061, 0.0666672778799820],
    "output.weight": [[-0.4874710351210810, -0.4963774530585171]],
    "output.bias": [-0.8987331965625572],
}
DIGITS = 1e-12  # relative: twelve digits

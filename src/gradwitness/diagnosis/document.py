"""Health as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from gradwitness.diagnosis.measured import Measured
from gradwitness.report.document import jsonable

__all__ = ["to_json"]

SCHEMA = 1  # raised when a key changes its meaning or goes


def to_json(health: Measured) -> str:
    """The environment, each stage with what passes by it, the same on each backend, and the findings."""
    document = {
        "health": SCHEMA,
        "environment": health.environment,
        "network": health.name,
        "dtype": health.dtype,
        "parameters": health.parameters,
        "stages": [_stage(health, number) for number in range(len(health.stages))],
        "backends": [asdict(flow) for flow in health.flows.values()],
        "findings": [asdict(finding) for finding in health.findings],
    }
    return json.dumps(jsonable(document), indent=1, allow_nan=False)


def _stage(health: Measured, number: int) -> dict[str, Any]:
    stage = health.stages[number]
    return {
        "layer": stage.layer,
        "use": stage.use,
        "parameters": list(stage.leaves),
        "activation": stage.activation,
        "place": None if stage.output.line is None else str(stage.output.line),
        **asdict(health.passing[number]),
        "attenuation": health.attenuation[number],
        "bound": health.bounds[number],
    }

"""Latencies that do not depend on what else the machine does."""

from typing import Any

import pytest
from msgspec.structs import replace

import edgefleet.optimize.measuring
from edgefleet.optimize.latency_process import LatencyAnswer


def make_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate takes 1 ms, whatever was measured. So size decides."""
    measured = edgefleet.optimize.measuring.run_child

    def run_child(*arguments: Any, **options: Any) -> Any:
        answer = measured(*arguments, **options)
        if not isinstance(answer, LatencyAnswer):
            return answer
        return LatencyAnswer(
            latencies=tuple(replace(one, p50_s=1e-3, p10_s=1e-3) for one in answer.latencies)
        )

    monkeypatch.setattr(edgefleet.optimize.measuring, "run_child", run_child)

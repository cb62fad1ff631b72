"""A model that blocks until the test unblocks it."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgefleet.base.errors import DeviceError


class Gated:
    """A model that blocks until the test unblocks it."""

    run_us = 5_000
    threads = ()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.fail = False

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        assert self.gate.wait(60)
        if self.fail:
            raise DeviceError("inference_failed", "It failed.")
        return [np.full((1, 10), 0.1, np.float32) for _ in outputs]

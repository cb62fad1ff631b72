"""Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats)."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Literal

Labels = Mapping[str, str]
Kind = Literal["counter", "gauge"]


class Histogram:
    """Counts of durations by upper bound, in seconds."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


class Exposition:
    """Builds the text, one metric after another."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self,
        name: str,
        kind: Kind,
        text: str,
        samples: Iterable[tuple[Labels, float]],
    ) -> None:
        """One metric with its samples."""
        self._head(name, kind, text)
        for labels, value in samples:
            self._lines.append(f"{name}{_labels(labels)} {value!r}")

    def gauge(self, name: str, text: str, label: str, values: Mapping[str, float]) -> None:
        """A gauge with one label."""
        self.family(name, "gauge", text, [({label: at}, value) for at, value in values.items()])

    def counter(self, name: str, text: str, label: str, values: Mapping[str, float]) -> None:
        """A counter with one label."""
        self.family(name, "counter", text, [({label: at}, value) for at, value in values.items()])

    def single(self, name: str, kind: Kind, text: str, value: float) -> None:
        """A metric without labels."""
        self.family(name, kind, text, [({}, value)])

    def histogram(self, name: str, text: str, histogram: Histogram) -> None:
        self._head(name, "histogram", text)
        below = 0
        for bound, count in zip(
            (*map(repr, histogram.bounds_s), "+Inf"), histogram.counts, strict=True
        ):
            below += count
            self._lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        self._lines.append(f"{name}_sum {histogram.sum_s!r}")
        self._lines.append(f"{name}_count {below}")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines.append(f"# HELP {name} {text}")
        self._lines.append(f"# TYPE {name} {kind}")


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

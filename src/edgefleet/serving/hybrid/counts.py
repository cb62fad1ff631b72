"""The counts of hybrid inference, for ``/metrics``. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from edgefleet.serving.hybrid.policy import Event, Outcome
from edgefleet.serving.metric_aliases import Sample

By = Literal["local", "fallback"]


class Counts:
    """Counters since the start of the process."""

    def __init__(self) -> None:
        self.answers: Counter[By] = Counter()
        self.outcomes: Counter[tuple[Event, Outcome]] = Counter()
        self.sent_bytes = 0
        self.received_bytes = 0

    def samples(self, *, in_flight: int, breaker_closed: bool) -> Iterator[Sample]:
        """The values of all metrics. ``in_flight`` forwarded requests have no answer yet."""
        text = "Answered inference requests, by the one who answered."
        for by in ("local", "fallback"):
            labels = {"by": by}
            yield Sample("edgefleet_answers_total", "counter", text, "", labels, self.answers[by])
        text = "Events of the fallback's policy, by their outcome."
        for (event, outcome), count in sorted(self.outcomes.items()):
            labels = {"event": event.value, "outcome": outcome.value}
            yield Sample("edgefleet_fallback_events_total", "counter", text, "", labels, count)
        text = "Bytes of forwarded requests and of their answers."
        for direction, count in (("sent", self.sent_bytes), ("received", self.received_bytes)):
            labels = {"direction": direction}
            yield Sample("edgefleet_fallback_bytes_total", "counter", text, "", labels, count)
        text = "Forwarded requests without an answer yet."
        yield Sample("edgefleet_fallback_in_flight", "gauge", text, "", {}, in_flight)
        text = "1 while requests may be forwarded, 0 while the circuit breaker is open."
        yield Sample("edgefleet_fallback_up", "gauge", text, "", {}, int(breaker_closed))

"""Consecutive windows of requests, and the differences between the last two of them.

A device compares its own windows: the new release with the previous release on the same traffic and
hardware, or, without a new release, the last window with the window before. The hub compares the
canaries with the controls, so that a change of the whole fleet is not attributed to the release.
"""

import math
from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent import sketch_math as bins
from edgefleet.agent.state import Incumbent, Mark, QualityWindow, Windows
from edgefleet.agent.telemetry import growth
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.bins import upper_edge_us
from edgefleet.protocol.device import Scores, Sketches, Switch
from edgefleet.protocol.serving import LiveStats, ModelStatus


def advance(
    windows: Windows,
    status: ModelStatus,
    grown: LiveStats,
    now: float,
    *,
    is_new_process: bool = False,
) -> Windows:
    """Count ``grown``, the requests since the last probe of the release in ``status``.

    After a switch, and in a new process, the latencies of the warm-up are left out.
    """
    filling, full = windows.filling, windows.full
    is_warming = is_new_process
    if filling is not None and filling.release != status.release:
        # The requests up to the switch are the baseline of the new release.
        if filling.timed >= limits.WINDOW_LEAST_REQUESTS:
            full = replace(filling, until=now)
        elif filling.switched is not None:
            full = None  # the comparison would span two switches
        filling, is_warming = None, True
    if filling is None:
        filling = QualityWindow(release=status.release, since=now, opened=now, early=grown.requests)
    if is_warming:
        filling = replace(filling, warm_until=now + limits.WARM_UP_S)
    is_warm = not filling.warm_until
    if filling.warm_until and now >= filling.warm_until:
        filling = replace(filling, warm_until=0.0)
    if grown.requests or grown.refused:
        if is_warm and grown.requests and not filling.timed:
            filling = replace(filling, since=now)
        filling = _add(filling, grown, status.stats, is_warm=is_warm)
    ended = replace(filling, until=now)
    following = QualityWindow(release=status.release, since=now, opened=now)
    if grown.requests and _is_full(filling, now):
        scores = None if full is None else compare(full, ended)
        return Windows(filling=following, full=ended, scores=to_report(windows.scores, scores))
    if full is not None and (_has_dried_up(full, ended) or _is_refused(ended)):
        # The requests are too few for other scores and for the baseline of the next window.
        after = _refusal_rate(ended)
        scores = Scores(
            from_release=full.release,
            to_release=ended.release,
            requests=ended.requests,
            request_rate_change=_rate_change(full, ended),
            refusal_rate_delta=_change(_refusal_rate(full), after),
            refusal_rate=after,
            asked=_asked(full, ended),
        )
        return Windows(filling=following, scores=to_report(windows.scores, scores))
    return replace(windows, filling=filling, full=full)


def end(windows: Windows, now: float, switches: tuple[Switch, ...] = ()) -> Windows:
    """End the window that fills: other models on the device were switched.

    With enough requests it is the baseline of the next window, otherwise it is dropped. There is no
    baseline if two switches are between it and the next window.
    """
    filling = windows.filling
    if filling is None:
        return windows
    full = windows.full
    if filling.timed >= limits.WINDOW_LEAST_REQUESTS:
        full = replace(filling, until=now)
    elif filling.switched is not None:
        switches = (filling.switched, *switches)
    if len(switches) > 1:
        full = None
    switched = switches[0] if len(switches) == 1 else None
    following = QualityWindow(
        release=filling.release,
        since=now,
        opened=now,
        switched=switched,
        warm_until=now + limits.WARM_UP_S if switches else filling.warm_until,
    )
    return replace(windows, filling=following, full=full)


def since(mark: Mark, pid: int, status: ModelStatus) -> QualityWindow:
    """The requests of one model since ``mark``, as one window."""
    empty = QualityWindow(release=status.release, since=0.0)
    return _add(empty, growth(mark, pid, status), status.stats, is_warm=True)


def answers_s(windows: Windows, release: str, now: float) -> float:
    """The answers per second of ``release``, over the last LOAD_SPAN_S or longer. 0 if unknown."""
    answers, since = 0, now
    for window in (windows.filling, windows.full):
        if window is None or window.release != release or now - since >= limits.LOAD_SPAN_S:
            break
        answers += max(0, window.requests - window.errors - window.early)
        since = window.opened
    return answers / (now - since) if since < now else 0.0


def compare(before: QualityWindow, after: QualityWindow) -> Scores:
    """The differences between the window ``after`` and the window ``before``."""
    old_us, new_us = _p95_us(before), _p95_us(after)
    old, new = _confidence(before), _confidence(after)
    refusals = _refusal_rate(after)
    return Scores(
        from_release=before.release,
        to_release=after.release,
        requests=min(before.requests, after.requests),
        latency_log_ratio=math.log(new_us / old_us) if old_us > 0 and new_us > 0 else None,
        error_rate_delta=after.errors / after.requests - before.errors / before.requests,
        confidence_delta=None if old is None or new is None else max(-1.0, min(1.0, new - old)),
        class_drift=_variation(before.sketches.classes, after.sketches.classes),
        input_drift=_variation(before.sketches.inputs, after.sketches.inputs),
        request_rate_change=_rate_change(before, after),
        switched=after.switched,
        latency_us_p95=round(new_us) if new_us > 0 else None,
        error_rate=min(1.0, after.errors / after.requests),
        refusal_rate_delta=_change(_refusal_rate(before), refusals),
        refusal_rate=refusals,
        asked=_asked(before, after),
        cpu_log_ratio=_cpu_log_ratio(before, after),
    )


def incumbent(windows: Windows, release: str, memory_mib_h: float = 0.0) -> Incumbent:
    """The last requests to ``release`` that this agent saw, none or some hundreds.

    ``memory_mib_h`` is the growth of its memory.
    """
    mine = [one for one in (windows.full, windows.filling) if one and one.release == release]
    return Incumbent(
        release=release,
        requests=sum(one.requests for one in mine),
        errors=sum(one.errors for one in mine),
        refused=sum(one.refused for one in mine),
        confidence_sum=sum(one.confidence_sum for one in mine),
        confidence_count=sum(one.confidence_count for one in mine),
        cpu_s=sum(one.cpu_s for one in mine),
        cpu_requests=sum(one.timed for one in mine if one.cpu_s),
        memory_mib_h=memory_mib_h,
    )


def to_report(waiting: Scores | None, new: Scores | None) -> Scores | None:
    """The scores to report next. Scores across a switch are kept until reported."""
    if new is None:
        return waiting
    if waiting is None or waiting.to_release != new.from_release:
        return new
    return waiting if _spans_switch(waiting) and not _spans_switch(new) else new


def _spans_switch(scores: Scores) -> bool:
    return scores.from_release != scores.to_release or scores.switched is not None


def _is_full(window: QualityWindow, now: float) -> bool:
    enough = window.timed >= limits.WINDOW_REQUESTS or (
        window.timed >= limits.WINDOW_LEAST_REQUESTS and now - window.since >= limits.WINDOW_S
    )
    return enough and now > window.opened  # one probe has no duration, and so no rate


def _has_dried_up(before: QualityWindow, window: QualityWindow) -> bool:
    """True if the previous rate would have filled the window: a fivefold of the least requests."""
    rate = _requests_per_s(before)
    waited_s = window.until - window.opened
    return (
        rate is not None
        and window.requests < limits.WINDOW_LEAST_REQUESTS
        and waited_s >= limits.WINDOW_S
        and rate * waited_s >= limits.WINDOW_REQUESTS
    )


def _is_refused(window: QualityWindow) -> bool:
    """True if a window that should be full has refused requests instead."""
    return (
        window.refused >= limits.WINDOW_LEAST_REQUESTS
        and window.timed < limits.WINDOW_LEAST_REQUESTS
        and window.until - window.opened >= limits.WINDOW_S
    )


def _refusal_rate(window: QualityWindow) -> float | None:
    asked = window.requests + window.refused
    return window.refused / asked if asked else None


def _asked(before: QualityWindow, after: QualityWindow) -> int:
    return min(before.requests + before.refused, after.requests + after.refused)


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _cpu_log_ratio(before: QualityWindow, after: QualityWindow) -> float | None:
    """The logarithm of the growth of CPU time per request. None if serving does not count it."""
    if not (before.cpu_s > 0 and before.timed and after.cpu_s > 0 and after.timed):
        return None
    return math.log(after.cpu_s / after.timed) - math.log(before.cpu_s / before.timed)


def _rate_change(before: QualityWindow, after: QualityWindow) -> float | None:
    """The change of requests per second as a share of the larger rate, -1 to 1.

    A fall by half is -0.5, and the rise back is 0.5, so chance alone has a mean of 0. None if a
    window has no duration or if both windows have no requests.
    """
    old, new = _requests_per_s(before), _requests_per_s(after)
    if old is None or new is None or not max(old, new):
        return None
    return (new - old) / max(old, new)


def _requests_per_s(window: QualityWindow) -> float | None:
    """The request rate from the end of the previous window to the end of this window.

    None if the window has no duration.
    """
    lasted_s = window.until - window.opened
    return (window.requests - window.early) / lasted_s if lasted_s > 0 else None


def _add(
    window: QualityWindow, grown: LiveStats, stats: LiveStats, *, is_warm: bool
) -> QualityWindow:
    found = grown.sketches
    if not is_warm:
        found = Sketches(confidence=found.confidence, classes=found.classes, inputs=found.inputs)
    return replace(
        window,
        requests=window.requests + grown.requests,
        timed=window.timed + grown.requests if is_warm else window.timed,
        errors=window.errors + grown.errors,
        cpu_s=window.cpu_s + grown.cpu_s if is_warm else window.cpu_s,
        refused=window.refused + grown.refused,
        confidence_sum=window.confidence_sum + grown.confidence_sum,
        confidence_count=window.confidence_count + grown.confidence_count,
        latency_us_p95=stats.latency_us_p95 if is_warm else window.latency_us_p95,
        sketches=bins.plus(window.sketches, found),
    )


def _confidence(window: QualityWindow) -> float | None:
    count = window.confidence_count
    return window.confidence_sum / count if count else None


def _p95_us(window: QualityWindow) -> float:
    """The 95th percentile in microseconds, interpolated linearly inside its bucket."""
    counts = window.sketches.latency
    wanted = 0.95 * sum(counts.values())
    counted = 0
    for bucket in sorted(counts):
        count = counts[bucket]
        if count and counted + count >= wanted:
            low = upper_edge_us(bucket - 1) if bucket else 0
            return low + (upper_edge_us(bucket) - low) * (wanted - counted) / count
        counted += count
    return float(window.latency_us_p95)


def _variation(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The total variation distance of two histograms. None if one of them is empty."""
    old, new = sum(before), sum(after)
    if not old or not new:
        return None
    pairs = zip(bins.padded(before, len(after)), bins.padded(after, len(before)), strict=True)
    return min(1.0, sum(abs(a / old - b / new) for a, b in pairs) / 2)

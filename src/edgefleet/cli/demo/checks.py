"""The demo checks its own result: observations against requirements. No clock, no network."""

from collections import Counter
from typing import Final

from edgefleet.cli.demo.observations import ClientObservations, StoryObservations
from edgefleet.cli.demo.story import MODEL, Chapter
from edgefleet.protocol.rollout import RolloutView, Status, WaveView
from edgefleet.protocol.wire import Wire

CAUGHT_BY_WAVE: Final = 2  # a bad release may reach this wave at most, and never the last one
ARRIVING: Final = 0.1  # share of the online devices that may still lack their first release


class Check(Wire, frozen=True, kw_only=True):
    """One requirement. ``holds`` is true if the demo met it."""

    name: str
    holds: bool
    text: str


def judge(observed: StoryObservations) -> tuple[Check, ...]:
    """All requirements of the demo."""
    verdicts = tuple(_verdict(chapter, view) for chapter, view in _pairs(observed))
    return (
        *verdicts,
        _exposure(observed),
        _caught_early(observed),
        _nobody_on_bad(observed),
        _back_on_good(observed),
        _refused_unseen(observed),
        _whole_fleet(observed),
        _no_failures(observed),
        _better_answers(observed),
    )


def opened(view: RolloutView) -> tuple[WaveView, ...]:
    """The opened waves; each has a cut."""
    return tuple(wave for wave in view.waves if wave.cut is not None)


def exposed_to_bad(observed: StoryObservations) -> int:
    """Number of devices that ever ran a bad release."""
    return sum(_exposed(observed, chapter, view) for chapter, view in _bad(observed) if view)


def accuracy(clients: tuple[ClientObservations, ...]) -> dict[str, float]:
    """Share of right answers of the real agents, by release."""
    answered, right = _summed(clients)
    return {release: right[release] / count for release, count in sorted(answered.items())}


def _pairs(observed: StoryObservations) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(zip(observed.chapters, observed.rollouts, strict=True))


def _bad(observed: StoryObservations) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(pair for pair in _pairs(observed) if pair[0].ends is not Status.COMPLETED)


def _exposed(observed: StoryObservations, chapter: Chapter, view: RolloutView) -> int:
    """The larger of the hub's count and the devices' own count."""
    users = sum(chapter.release in client.answered for client in observed.clients)
    return max(view.exposed, observed.fleet.ran.get(chapter.release, 0) + users)


def _good_release(observed: StoryObservations) -> str:
    """The last release whose rollout must complete."""
    return [chapter.release for chapter in observed.chapters if chapter.ends is Status.COMPLETED][
        -1
    ]


def _verdict(chapter: Chapter, view: RolloutView | None) -> Check:
    name = f"release_{chapter.release}_{chapter.ends}"
    if view is None:
        return Check(name=name, holds=False, text=f"Release {chapter.release} was not reached.")
    holds = view.status is chapter.ends and view.reason in chapter.reasons
    text = f"Release {chapter.release} is {view.status} ({view.reason}): {view.text}"
    return Check(name=name, holds=holds, text=text)


def _exposure(observed: StoryObservations) -> Check:
    """No bad release may run on more devices than the cut of its open wave."""
    texts: list[str] = []
    holds = True
    for chapter, view in _bad(observed):
        waves = opened(view) if view else ()
        if view is None or not waves:
            holds = False
            continue
        cut, exposed = waves[-1].cut or 0, _exposed(observed, chapter, view)
        holds = holds and exposed <= cut
        texts.append(f"Release {chapter.release} ran on {exposed} devices, cut {cut}")
    return Check(name="exposure_within_cut", holds=holds, text=f"{'; '.join(texts) or 'Unknown'}.")


def _caught_early(observed: StoryObservations) -> Check:
    bad = [view for _, view in _bad(observed) if view]
    waves = max((len(opened(view)) for view in bad), default=0)
    # In a very small fleet the first wave is the whole fleet.
    early = all(len(opened(view)) <= _early_waves(view) for view in bad)
    return Check(
        name="caught_early",
        holds=waves > 0 and early,
        text=f"Bad releases were stopped in wave {waves} or earlier.",
    )


def _early_waves(view: RolloutView) -> int:
    return max(1, min(CAUGHT_BY_WAVE, len(view.waves) - 1))


def _nobody_on_bad(observed: StoryObservations) -> Check:
    """Checked in the hub's list (with offline devices), on the devices, and by the clients."""
    on_bad = {
        chapter.release: (
            observed.listed.get(chapter.release, 0),
            observed.fleet.on_release.get(chapter.release, 0),
            sum(client.last == chapter.release for client in observed.clients),
        )
        for chapter, _ in _bad(observed)
    }
    counts = "; ".join(
        f"release {release}: {hub} at the hub, {own} simulated, {real} real"
        for release, (hub, own, real) in on_bad.items()
    )
    holds = not any(map(any, on_bad.values()))
    return Check(
        name="nobody_on_bad", holds=holds, text=f"Devices still on a bad release: {counts}."
    )


def _back_on_good(observed: StoryObservations) -> Check:
    good = _good_release(observed)
    exposed = back = 0
    for chapter, _ in _bad(observed):
        now = observed.fleet.ran_now.get(chapter.release, {})
        users = [client for client in observed.clients if chapter.release in client.answered]
        exposed += sum(now.values()) + len(users)
        back += now.get(good, 0) + sum(client.last == good for client in users)
    return Check(
        name="back_on_good",
        holds=exposed == back,
        text=f"{back} of {exposed} devices that ran a bad release are back on release {good}.",
    )


def _refused_unseen(observed: StoryObservations) -> Check:
    """A refused release must never have served a request."""
    refused = [
        (chapter, view) for chapter, view in _bad(observed) if chapter.ends is Status.REFUSED
    ]
    ran = sum(_exposed(observed, chapter, view) for chapter, view in refused if view)
    return Check(
        name="refused_before_activation",
        holds=ran == 0 and all(view for _, view in refused),
        text=f"{ran} devices ran the release that devices must refuse.",
    )


def _whole_fleet(observed: StoryObservations) -> Check:
    good = _good_release(observed)
    online = observed.hub.on_release.get(MODEL, {})
    arriving = observed.hub.online - sum(online.values())  # were offline during all rollouts
    holds = (
        observed.hub.total == observed.expected_devices
        and set(online) == {good}
        and arriving <= ARRIVING * observed.hub.online
    )
    counts = [f"{count} on release {release}" for release, count in sorted(online.items())]
    counts += [f"{arriving} just online and without a release"] if arriving else []
    return Check(
        name="fleet_on_good",
        holds=holds,
        text=f"{observed.hub.total} devices, {observed.hub.online} online: {', '.join(counts)}.",
    )


def _no_failures(observed: StoryObservations) -> Check:
    requests = sum(client.requests for client in observed.clients)
    failed = sum(client.failed for client in observed.clients)
    first = next((client.first_failure for client in observed.clients if client.first_failure), "")
    return Check(
        name="no_request_failed",
        holds=failed == 0 and bool(observed.clients) and all(c.requests for c in observed.clients),
        text=f"{failed} of {requests} requests failed{f', first: {first}' if first else ''}.",
    )


def _better_answers(observed: StoryObservations) -> Check:
    """Each good release answered requests, and the newer one with higher accuracy."""
    found = accuracy(observed.clients)
    good = [chapter.release for chapter in observed.chapters if chapter.ends is Status.COMPLETED]
    shares = [found.get(release) for release in good]
    shares_text = ", ".join(f"{share:.3f} by release {release}" for release, share in found.items())
    known = [share for share in shares if share is not None]
    return Check(
        name="better_answers",
        holds=len(known) == len(good) and known == sorted(known),
        text=f"Right answers: {shares_text or 'none'}.",
    )


def _summed(clients: tuple[ClientObservations, ...]) -> tuple[Counter[str], Counter[str]]:
    answered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for client in clients:
        answered.update(client.answered)
        right.update(client.right)
    return answered, right

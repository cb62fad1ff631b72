"""The demo checks its own result: observations against requirements. No clock, no network."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

from edgefleet.cli.demo.observations import ClientObservations, StoryObservations
from edgefleet.cli.demo.story import Chapter, good_releases, models_of
from edgefleet.protocol.rollout import BakeEnd, RolloutView, Status, WaveView
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
    models = models_of(observed.chapters)
    return (
        *verdicts,
        *(_baked(chapter, view) for chapter, view in _pairs(observed) if chapter.bakes),
        _exposure(observed),
        _caught_early(observed),
        _nobody_on_bad(observed),
        _back_on_good(observed),
        _refused_unseen(observed),
        *(_whole_fleet(observed, model) for model in models),
        _side_by_side(observed),
        *(_never_failed(observed, model) for model in models),
        _better_answers(observed),
    )


def opened(view: RolloutView) -> tuple[WaveView, ...]:
    """The opened waves; each has a cut."""
    return tuple(wave for wave in view.waves if wave.cut is not None)


def exposed_to_bad(observed: StoryObservations) -> int:
    """Number of devices that ever ran a bad release."""
    return sum(_exposed(observed, chapter, view) for chapter, view in _bad(observed) if view)


def accuracy(clients: tuple[ClientObservations, ...]) -> dict[str, dict[str, float]]:
    """Share of right answers of the real agents, by model and release."""
    answered, right = _summed(clients)
    return {
        model: {release: right[model][release] / count for release, count in sorted(counts.items())}
        for model, counts in answered.items()
    }


def of_model(observed: StoryObservations, model: str) -> tuple[ClientObservations, ...]:
    """The clients that ask the model."""
    return tuple(client for client in observed.clients if client.model == model)


def _pairs(observed: StoryObservations) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(zip(observed.chapters, observed.rollouts, strict=True))


def _bad(observed: StoryObservations) -> tuple[tuple[Chapter, RolloutView | None], ...]:
    return tuple(pair for pair in _pairs(observed) if not pair[0].is_good)


def _exposed(observed: StoryObservations, chapter: Chapter, view: RolloutView) -> int:
    """The larger of the hub's count and the devices' own count."""
    ran = observed.fleet.ran.get(chapter.model, {})
    users = len(_users(observed, chapter))
    return max(view.exposed, ran.get(chapter.release, 0) + users)


def _users(observed: StoryObservations, chapter: Chapter) -> list[ClientObservations]:
    """The clients that ever got an answer of the chapter's release."""
    clients = of_model(observed, chapter.model)
    return [client for client in clients if chapter.release in client.answered]


def _verdict(chapter: Chapter, view: RolloutView | None) -> Check:
    name = f"{chapter.model}_{chapter.release}_{chapter.ends}"
    if view is None:
        return Check(name=name, holds=False, text=f"{chapter.name} was not reached.")
    holds = view.status is chapter.ends and view.reason in chapter.reasons
    text = f"{chapter.name} is {view.status} ({view.reason}): {view.text}"
    return Check(name=name, holds=holds, text=text)


def _baked(chapter: Chapter, view: RolloutView | None) -> Check:
    """The release was still judged after its last wave, until its bake passed."""
    bake = view.bake if view else None
    end = "had no bake" if bake is None else f"had a bake that ended as {bake.end or 'open'}"
    return Check(
        name=f"{chapter.model}_{chapter.release}_baked",
        holds=bake is not None and bake.end is BakeEnd.PASSED,
        text=f"{chapter.name} {end}.",
    )


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
        texts.append(f"{chapter.name} ran on {exposed} devices, cut {cut}")
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
        chapter.name: (
            observed.listed.get(chapter.model, {}).get(chapter.release, 0),
            observed.fleet.on_release.get(chapter.model, {}).get(chapter.release, 0),
            sum(client.last == chapter.release for client in of_model(observed, chapter.model)),
        )
        for chapter, _ in _bad(observed)
    }
    counts = "; ".join(
        f"{name}: {hub} at the hub, {own} simulated, {real} real"
        for name, (hub, own, real) in on_bad.items()
    )
    holds = not any(map(any, on_bad.values()))
    return Check(
        name="nobody_on_bad", holds=holds, text=f"Devices still on a bad release: {counts}."
    )


def _back_on_good(observed: StoryObservations) -> Check:
    goods = good_releases(observed.chapters)
    exposed = back = 0
    for chapter, _ in _bad(observed):
        now = observed.fleet.ran_now.get(chapter.model, {}).get(chapter.release, {})
        users, good = _users(observed, chapter), goods.get(chapter.model, "")
        exposed += sum(now.values()) + len(users)
        back += now.get(good, 0) + sum(client.last == good for client in users)
    return Check(
        name="back_on_good",
        holds=exposed == back,
        text=f"{back} of {exposed} devices that ran a bad release are back on the good one.",
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


def _whole_fleet(observed: StoryObservations, model: str) -> Check:
    """The online devices run the good release of the model, but for a few that just came back.

    Those have no release of it, or the good one of before.
    """
    good = good_releases(observed.chapters)[model]
    former = {one.release for one in observed.chapters if one.model == model and one.is_good}
    online = observed.hub.on_release.get(model, {})
    without = observed.hub.online - sum(online.values())
    arriving = observed.hub.online - online.get(good, 0)
    holds = (
        observed.hub.total == observed.expected_devices
        and good in online
        and former >= set(online)
        and arriving <= ARRIVING * observed.hub.online
    )
    counts = [f"{count} on {model} {release}" for release, count in sorted(online.items())]
    counts += [f"{without} just online and without {model}"] if without else []
    return Check(
        name=f"fleet_on_good_{model}",
        holds=holds,
        text=f"{observed.hub.total} devices, {observed.hub.online} online: {', '.join(counts)}.",
    )


def _side_by_side(observed: StoryObservations) -> Check:
    """Each real device has the good release of every model: no model displaced another.

    Checked in the hub's list and in the serving process of the device.
    """
    goods = good_releases(observed.chapters)
    wrong = [
        f"{device.name} serves {_named(device.served)} (listed: {_named(device.listed)})"
        for device in observed.real
        if device.listed != goods or device.served != goods
    ]
    found = "; ".join(wrong) or f"Each of {len(observed.real)} real devices serves {_named(goods)}"
    holds = bool(observed.real) and not wrong
    return Check(name="models_side_by_side", holds=holds, text=f"{found}.")


def _named(releases: Mapping[str, str]) -> str:
    """The releases as a list in a sentence."""
    return " and ".join(f"{model} {one}" for model, one in sorted(releases.items())) or "nothing"


def _never_failed(observed: StoryObservations, model: str) -> Check:
    """Every real device answered its client of the model, always."""
    clients = of_model(observed, model)
    requests = sum(client.requests for client in clients)
    failed = sum(client.failed for client in clients)
    first = next((client.first_failure for client in clients if client.first_failure), "")
    unasked = [client.agent for client in clients if not client.requests]
    text = f"{failed} of {requests} requests to {model} failed"
    text += f", first: {first}" if first else ""
    text += f"; none was served by {', '.join(unasked)}" if unasked else ""
    return Check(
        name=f"no_request_to_{model}_failed",
        holds=failed == 0 and bool(clients) and not unasked,
        text=f"{text}.",
    )


def _better_answers(observed: StoryObservations) -> Check:
    """Each good release answered requests, and the newer of a model with higher accuracy."""
    found = accuracy(observed.clients)
    good = [chapter for chapter in observed.chapters if chapter.is_good]
    shares: defaultdict[str, list[float | None]] = defaultdict(list)
    for chapter in good:
        shares[chapter.model].append(found.get(chapter.model, {}).get(chapter.release))
    shares_text = ", ".join(
        f"{share:.3f} by {model} {release}"
        for model, releases in found.items()
        for release, share in releases.items()
    )
    known = {model: [one for one in found if one is not None] for model, found in shares.items()}
    return Check(
        name="better_answers",
        holds=all(known[model] == sorted(known[model]) for model in known)
        and sum(map(len, known.values())) == len(good),
        text=f"Right answers: {shares_text or 'none'}.",
    )


def _summed(
    clients: tuple[ClientObservations, ...],
) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """The answers and the right answers by model and release."""
    answered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    right: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for client in clients:
        answered[client.model].update(client.answered)
        right[client.model].update(client.right)
    return answered, right

"""The page shows tests with intervals and the exposure limit, and people can approve and freeze."""

import msgspec
import pytest

from edgefleet.protocol.operator import QuarantinedDevice
from edgefleet.protocol.rollout import (
    Approval,
    ApprovalSpec,
    BudgetSpec,
    ClassRate,
    Difference,
    Evidence,
    Outage,
    PaceSpec,
    Rate,
    SiteComparison,
    Status,
    WindowSpec,
)
from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.web.gate_tests import gate_tests, interval_bar
from support.fake_reads import FakeReads
from support.scenes import NOW, report, rollout_in
from support.signed_in import SignedIn, signed_in


def say(page: SignedIn, target: str, **fields: str) -> None:
    page.post(target, {"form_token": page.form_token(), **fields})


def test_a_rate_is_shown_with_its_interval_and_e_value() -> None:
    rate = Rate(bad=14, size=90, allowed=0.05, low=0.059, high=0.305, e_value=240.0)
    (shown,) = gate_tests(Evidence(errors=rate))
    assert (shown.observed, shown.leans) == ("14 of 90", True)
    assert "15.6" in shown.estimate
    assert "5.9" in shown.interval
    assert "30.5" in shown.interval


def test_a_metric_that_nobody_named_is_shown_by_its_code() -> None:
    one = Difference(metric="heat", pairs=3, mean=0.1, low=-0.2, high=0.3, allowed=0.1)
    (shown,) = gate_tests(Evidence(quality=(one,)))
    assert (shown.name, shown.estimate, shown.leans) == ("heat", "+0.100", False)


def test_a_class_with_failures_is_a_test_of_its_own() -> None:
    rates = [Rate(bad=bad, size=4, allowed=0.05, low=0.1, high=0.9, e_value=9.0) for bad in (3, 0)]
    worst = [
        ClassRate(key="profile", value=value, rate=rate)
        for value, rate in zip(("jetson_nano", "generic_x86"), rates, strict=True)
    ]
    (shown,) = gate_tests(Evidence(classes=tuple(worst), class_count=2))
    assert shown.name.endswith("profile=jetson_nano")
    assert (shown.observed, shown.leans) == ("3 of 4", True)


def test_nothing_known_is_no_test() -> None:
    assert gate_tests(Evidence()) == ()


@pytest.mark.parametrize(
    ("low", "mean", "high", "allowed"), [(0, 0, 0, 0), (-0.3, -0.1, 0.0, 0.05), (0.2, 0.5, 1, 0.01)]
)
def test_a_bar_stays_inside_its_picture(
    low: float, mean: float, high: float, allowed: float
) -> None:
    drawn = str(interval_bar(low, mean, high, allowed, "x"))
    places = [float(part.split('%"')[0].rsplit('"', 1)[-1]) for part in drawn.split("x1=")[1:]]
    assert all(0 <= place <= 100 for place in places)
    assert "-" not in drawn.split('width="')[2].split('"', maxsplit=1)[0]


def test_the_rollout_page_shows_tests_exposure_and_bounds() -> None:
    reads = FakeReads()
    view = rollout_in(Status.RUNNING)
    plan = msgspec.structs.replace(
        view.plan,
        pace=PaceSpec(starts_per_minute=17),
        budgets=(BudgetSpec(label="depot"),),
        windows=(WindowSpec(start="22:00", end="06:00", timezone="Europe/Paris"),),
    )
    reads.put(msgspec.structs.replace(view, plan=plan, ineligible={"no_variant": 31}))
    page = signed_in(reads).get(f"/rollouts/{view.id}").text
    for said in ("Tests of the gate", "1 of 72", "64 pairs", "<b>72</b> allowed now", ">17<",
                 "On trial by depot", "Europe/Paris", "no_variant"):  # fmt: skip
        assert said in page, said
    assert 'formaction="/rollouts/ro-running/approve"' not in page


def test_the_rollout_page_shows_an_outage_and_the_comparison_by_site() -> None:
    reads = FakeReads()
    view = rollout_in(Status.RUNNING)
    outage = Outage(
        key="site", value="lyon", at=NOW, dark=3, in_trial=4, dark_control=57, control=58
    )
    evidence = msgspec.structs.replace(
        view.evidence, silent=2, set_aside=3, sites=SiteComparison(e_value=0.25, groups=2)
    )
    reads.put(msgspec.structs.replace(view, outages=(outage,), evidence=evidence))
    page = signed_in(reads).get(f"/rollouts/{view.id}").text
    for part in (
        "Outage at site lyon: 3 of 4 devices in trial and 57 of 58",
        "against the control of the site: e-value 0.25",
        "set aside <b>3</b>",
    ):
        assert part in page, part


def test_the_rollout_page_shows_a_changed_interface_and_a_devices_words() -> None:
    reads = FakeReads()
    view = rollout_in(Status.RUNNING)
    evidence = msgspec.structs.replace(
        view.evidence,
        reasons={"golden_failed": 1},
        details={"golden_failed": "accuracy 0.3 is below 0.9"},
    )
    change = "Against release 1: Input x is gone; image is new."
    reads.put(
        msgspec.structs.replace(
            view, interface=(change,), unjudged="Confidence is not judged.", evidence=evidence
        )
    )
    page = signed_in(reads).get(f"/rollouts/{view.id}").text
    for part in (change, "Confidence is not judged.", "accuracy 0.3 is below 0.9"):
        assert part in page, part


def test_a_rollout_that_waits_for_people_can_be_approved_on_its_page() -> None:
    reads = FakeReads()
    view = rollout_in(Status.RUNNING)
    wait = Wait(code=WaitCode.APPROVAL, text="1 more must approve it.")
    plan = msgspec.structs.replace(view.plan, approval=ApprovalSpec(people=2))
    agreed = (Approval(person="alice", at=NOW - 5, wave=0),)
    why = report(f"rollout/{view.id}", wait.text, wait, at=NOW)
    reads.put(msgspec.structs.replace(view, plan=plan, approvals=agreed, why=why))
    page = signed_in(reads)
    text = page.get(f"/rollouts/{view.id}").text
    assert "alice, wave 1" in text
    assert 'formaction="/rollouts/ro-running/approve"' in text
    say(page, f"/rollouts/{view.id}/approve", person="bob")
    assert reads.approved == [("ro-running", "bob")]
    say(page, f"/rollouts/{view.id}/approve", person=" ")
    assert len(reads.approved) == 1


def test_the_fleet_is_frozen_and_thawed_on_its_page() -> None:
    reads = FakeReads()
    page = signed_in(reads)
    assert "Freeze the fleet" in page.get("/").text
    say(page, "/fleet/freeze")
    assert reads.freeze_said.frozen
    assert "has frozen the whole fleet" in page.get("/").text
    say(page, "/fleet/thaw")
    assert not reads.freeze_said.frozen


def test_a_quarantined_device_is_listed_and_cleared_on_the_page() -> None:
    reads = FakeReads()
    name = reads.device_views[0].name
    reads.quarantined_devices = [QuarantinedDevice(name=name, model="digits", rollbacks=2)]
    page = signed_in(reads)
    assert "Quarantined devices" in page.get("/").text
    say(page, f"/devices/{name}/unquarantine")
    assert reads.quarantined_devices == []


@pytest.mark.parametrize("path", ["/fleet/freeze", "/devices/lyon-0000/unquarantine"])
def test_a_form_of_nobodys_session_changes_nothing(path: str) -> None:
    reads = FakeReads()
    name = reads.device_views[0].name
    reads.quarantined_devices = [QuarantinedDevice(name=name, model="digits", rollbacks=2)]
    signed_in(reads).post(path, {"form_token": "0" * 64})
    assert not reads.freeze_said.frozen
    assert reads.quarantined_devices

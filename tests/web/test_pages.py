"""Every page shows the hub's views, and its JSON twin has the same data."""

import re
from html.parser import HTMLParser
from importlib import resources

import msgspec
import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import IsolationReason, isolation_text
from edgefleet.protocol.operator import (
    AuditPage,
    DeviceModel,
    DevicePage,
    DeviceView,
    FleetView,
    Models,
    ModelView,
    QuarantinedDevice,
    ReleaseView,
    Rollouts,
)
from edgefleet.protocol.reasons import reason_text
from edgefleet.protocol.rollout import RolloutView, Status, Verb
from edgefleet.protocol.why import WAITS, Wait, WaitCode
from edgefleet.protocol.wire import Problem, Wire, decode
from edgefleet.web.pages import PAGES, Asked
from edgefleet.web.words import latency, share, size, span, tone
from support.fake_reads import FakeReads
from support.scenes import rollout_in, two_models, two_reasons
from support.signed_in import SignedIn, signed_in

TWINS: dict[str, type[Wire]] = {
    "/": FleetView,
    "/rollouts": Rollouts,
    "/rollouts/ro-completed": RolloutView,
    "/devices": DevicePage,
    "/devices/lyon-0000": DeviceView,
    "/models": Models,
    "/models/digits": ModelView,
    "/models/digits/3": ReleaseView,
    "/audit": AuditPage,
}
HOSTILE = '<script>alert("1")</script>\'"&'
VOID = {"meta", "link", "input", "img", "br", "path", "line", "rect"}


class Nesting(HTMLParser):
    """Finds wrongly nested elements and duplicate ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def well_formed(text: str) -> Nesting:
    found = Nesting()
    found.feed(text)
    found.close()
    assert found.wrong == []
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    return found


@pytest.fixture
def page() -> SignedIn:
    reads = FakeReads()
    for status in Status:
        reads.put(rollout_in(status))
    return signed_in(reads)


@pytest.mark.parametrize("address", TWINS)
def test_a_page_renders_and_its_twin_is_the_protocol_object(page: SignedIn, address: str) -> None:
    reply = page.get(address)
    assert reply.status == 200
    assert [one["src"].partition("?v=")[0] for one in well_formed(reply.text).scripts] == [
        "/static/idiomorph.min.js",
        "/static/live.js",
    ]
    twin = re.search(r'href="([^"]+)">JSON<', reply.text)
    assert twin is not None
    answer = page.get(twin[1])
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(decode(answer.body, TWINS[address]), TWINS[address])


def test_every_page_has_a_test_of_its_twin() -> None:
    assert len(TWINS) == len(PAGES)


@pytest.mark.parametrize("status", Status)
def test_a_rollout_renders_wherever_it_stands(page: SignedIn, status: Status) -> None:
    rollout = rollout_in(status)
    text = page.get(f"/rollouts/ro-{status.value}").text
    well_formed(text)
    assert f">{status.value}</span>" in text
    assert rollout.text in text
    for wait in rollout.why.waits:
        assert wait.text in text
    for name in (name for wait in rollout.why.waits for name in wait.first):
        assert f'href="/devices/{name}"' in text


def test_a_rollout_shows_its_cut_its_failures_and_both_cohorts(page: SignedIn) -> None:
    text = page.get("/rollouts/ro-reverting").text
    for shown in (
        "cut 101 of 1,003",
        "confidence dropped",
        "confidence_drop",
        "64.7\u202f%",
        "0.71",
        "0.94",
        "at least 0.84",
    ):
        assert shown in text


def test_a_rollout_names_the_releases_that_it_replaces_and_those_that_stay(page: SignedIn) -> None:
    planned = rollout_in(Status.PLANNED)
    page.reads.put(msgspec.structs.replace(planned, adds=4, beside={"detector 2": 7}))
    text = page.get("/rollouts/ro-planned").text
    for shown in (
        "model digits to 4 devices (1003 already run it)",
        "digits 1 on 31 devices, digits 2 on 972 devices",
        "detector 2 on 7 devices (other models)",
        "<dt>Removes</dt><dd>nothing</dd>",
        "Open the first wave, 1\u202f% of 1,007 devices?",
    ):
        assert shown in text


def test_a_rollout_without_measurements_says_so(page: SignedIn) -> None:
    reads = page.reads
    reads.history = lambda rollout, /: msgspec.structs.replace(
        FakeReads.history(reads, rollout), points=()
    )  # type: ignore[method-assign]
    assert "The chart needs two measurements." in page.get("/rollouts/ro-running").text


@pytest.mark.parametrize("status", Status)
def test_only_the_verbs_that_are_possible_now_can_be_given(page: SignedIn, status: Status) -> None:
    text = page.get(f"/rollouts/ro-{status.value}").text
    possible = {
        Status.PLANNED: {"start", "halt"},
        Status.RUNNING: {"pause", "advance", "halt", "revert"},
        Status.PAUSED: {"resume", "halt", "revert"},
        Status.HALTED: {"resume", "revert"},
        Status.COMPLETED: {"advance", "revert"},  # its bake is open
    }.get(status, set())
    buttons = re.findall(r'<button[^>]*formaction="/rollouts/[^"]*/(\w+)"([^>]*)>', text)
    assert {verb for verb, _ in buttons} == set(Verb)
    assert {verb for verb, rest in buttons if "disabled" not in rest} == possible


@pytest.mark.parametrize("verb", ["advance", "halt", "revert"])
def test_verbs_that_cannot_be_taken_back_ask_first(page: SignedIn, verb: str) -> None:
    text = page.get("/rollouts/ro-running").text
    asked = text[text.index(f'id="confirm-{verb}"') :].split("</details>")[0]
    assert "<summary" in asked
    assert f'formaction="/rollouts/ro-running/{verb}"' in asked


def test_what_the_hub_refuses_is_said_on_the_rollouts_page(page: SignedIn) -> None:
    page.reads.refusal = OperatorError("verb_not_now", "Rollout ro-running moved on: it is paused.")
    reply = page.post("/rollouts/ro-running/pause", {"form_token": page.form_token()})
    assert reply.status == 409
    assert "moved on: it is paused." in reply.text
    assert "edgefleet rollout why" in reply.text
    assert 'data-live="/rollouts/ro-running"' in reply.text


@pytest.mark.parametrize(
    "address", ["/rollouts/none", "/devices/none", "/models/none", "/models/digits/9"]
)
def test_what_does_not_exist_is_not_found_in_every_form(page: SignedIn, address: str) -> None:
    reply = page.get(address)
    assert (reply.status, "List the existing objects" in reply.text) == (404, True)
    assert page.get(address, accept="text/event-stream").status == 404
    twin = page.get(f"{address}.json")
    assert (twin.status, decode(twin.body, Problem).code) == (404, "not_found")


def test_devices_are_filtered_by_selector_and_paged(page: SignedIn) -> None:
    text = page.get("/devices?selector=site%3Dlyon").text
    assert "lyon-0003" in text
    assert "oslo-0001" not in text
    first = page.get("/devices").text
    more = re.search(r'href="(/devices\?after=[^"]+)"', first)
    assert more is not None
    second = page.get(more[1].replace("&amp;", "&")).text
    names = [set(re.findall(r'href="/devices/(\w+-\d+)"', shown)) for shown in (first, second)]
    assert names[0].isdisjoint(names[1])
    assert len(names[0]) == 50


def test_a_selector_that_cannot_be_is_named_beside_the_filter(page: SignedIn) -> None:
    reply = page.get("/devices?selector=nowhere")
    assert reply.status == 200
    assert "selector_key_unknown" in reply.text
    assert 'value="nowhere"' in reply.text


@pytest.fixture
def several(page: SignedIn) -> SignedIn:
    """The page of a hub with two models, and a device that has both."""
    detector = ModelView(name="detector", releases=("2", "1"), devices={"1": 4})
    page.reads.more_models = (detector,)
    page.reads.device_views.insert(0, two_models())
    view = msgspec.structs.replace(rollout_in(Status.RUNNING), id="ro-detector", model="detector")
    page.reads.put(view)
    return page


def test_a_device_shows_the_figures_of_its_check_ins_with_their_range(page: SignedIn) -> None:
    text = page.get("/devices/lyon-0000").text
    part = text[text.index('data-part="device_figures"') :]
    part = part[: part.index("</section>")]
    assert "digits, release 2" in part
    assert "Requests a second: 0 to 10" in part  # 100 requests in 10 s, and none
    assert "Latency p50 and p95: 100 \u00b5s to 1.3 ms" in part
    assert "Confidence: 0.82 to 0.90" in part
    assert part.count("<svg") == 6  # each curve is one in its picture
    lines = re.findall(r'class="line p50"', part)
    assert len(lines) == 3
    page.reads.figures = []
    assert "No figures yet" in page.get("/devices/lyon-0000").text


def test_devices_are_filtered_by_what_they_run(several: SignedIn) -> None:
    text = several.get("/devices?runs=digits:3").text
    found = set(re.findall(r'href="/devices/(\w+-\d+)"', text))
    running = [
        view.name
        for view in several.reads.device_views
        if any((one.model, one.release) == ("digits", "3") for one in view.models)
    ]
    assert found == set(running)
    assert 'value="digits:3"' in text
    more = re.search(r'href="(/devices\?after=[^"]+)"', several.get("/devices?runs=digits").text)
    assert more is not None
    assert "runs=digits" in more[1]


def test_a_model_that_is_not_published_is_named_beside_the_filter(several: SignedIn) -> None:
    reply = several.get("/devices?runs=ocr")
    assert (reply.status, 'value="ocr"' in reply.text) == (200, True)
    assert "There is no model ocr." in reply.text


def test_a_device_shows_each_model_with_its_reason(several: SignedIn) -> None:
    device = two_models()
    several.reads.reports[device.name] = two_reasons()
    text = several.get(f"/devices/{device.name}").text
    well_formed(text)
    for one in device.models:
        assert one.line in text
        assert f'href="/models/{one.model}"' in text
        assert f'href="/rollouts/{one.rollout}"' in text
        assert f"<b>{one.model}</b>" in text
    assert "not on the device" in text
    assert "512 MiB" in text
    row = several.get("/devices").text.split(f'href="/devices/{device.name}"')[1].split("</tr>")[0]
    assert "<b>detector 2</b>" in row
    assert "detector staged, digits trial" in row


def test_a_device_whose_releases_the_hub_does_not_know_is_shown(several: SignedIn) -> None:
    unknown = msgspec.structs.replace(two_models(), name="odd", unknown_set=True, models=())
    several.reads.device_views.insert(0, unknown)
    assert "table of release sets is full" in several.get("/devices/odd").text
    assert "<b>unknown</b>" in several.get("/devices").text
    fleet = msgspec.structs.replace(several.reads.fleet(), unknown_sets=3)
    several.reads.fleet = lambda: fleet  # type: ignore[method-assign]
    assert "<b>3</b><span>with unknown releases" in several.get("/").text


def test_disks_that_cannot_be_written_wait_for_an_operator(several: SignedIn) -> None:
    faults = {"disk_full": 1, "disk_readonly": 2}
    fleet = msgspec.structs.replace(several.reads.fleet(), disk_faults=faults)
    several.reads.fleet = lambda: fleet  # type: ignore[method-assign]
    text = several.get("/").text
    assert '<a href="/devices?state=disk_fault">3</a></b><span>with a disk fault' in text
    assert '<a href="/devices?state=disk_fault">3 devices</a> cannot write the disk' in text
    assert "Nothing waits for an operator." not in text


def test_rollouts_are_filtered_by_model(several: SignedIn) -> None:
    every = several.get("/rollouts").text
    assert {"/rollouts/ro-detector", "/rollouts/ro-running"} <= set(
        re.findall(r"/rollouts/[\w-]+", every)
    )
    assert 'href="/rollouts?model=detector"' in every
    text = several.get("/rollouts?model=detector").text
    assert set(re.findall(r'href="/rollouts/([\w-]+)"', text)) == {"ro-detector"}
    assert "Newest first, of detector" in text


def test_a_rollout_that_adds_its_model_counts_the_devices(page: SignedIn) -> None:
    view = msgspec.structs.replace(
        rollout_in(Status.RUNNING),
        previous=None,
        adds=40,
        had_model=3,
        ineligible={"no_variant": 2},
    )
    page.reads.put(view)
    text = page.get("/rollouts/ro-running").text
    assert "model digits to 40 devices (3 already run it)" in text
    assert "2 <code>no_variant</code>" in text


def test_a_second_chance_shows_its_reason(page: SignedIn) -> None:
    view = rollout_in(Status.RUNNING)
    plan = msgspec.structs.replace(view.plan, again="the <lens> is clean")
    page.reads.put(msgspec.structs.replace(view, plan=plan))
    assert "<dd>the &lt;lens&gt; is clean</dd>" in page.get("/rollouts/ro-running").text


def test_the_fleet_page_counts_devices_and_rollouts_by_model(several: SignedIn) -> None:
    text = several.get("/").text
    assert 'href="/devices?runs=digits">967 online</a>' in text
    assert 'href="/devices?runs=detector">0 online</a>' in text
    assert 'href="/rollouts?model=detector">1 open rollout</a>' in text


def test_a_device_whose_name_ends_like_a_twin_has_a_page(page: SignedIn) -> None:
    odd = msgspec.structs.replace(page.reads.device_views[0], name="cam.json")
    page.reads.device_views.insert(0, odd)
    link = re.search(r'href="(/devices/cam\.json[^"]*)"', page.get("/devices").text)
    assert link is not None
    reply = page.get(link[1])
    assert reply.status == 200
    assert "<h1>cam.json</h1>" in reply.text
    assert decode(page.get("/devices/cam.json.json").body, DeviceView) == odd


def test_a_release_shows_its_variants_its_floors_and_who_signed_it(page: SignedIn) -> None:
    text = page.get("/models/digits/3").text
    for shown in (
        "jetson_nano",
        "fp16",
        "20.5 KiB",
        "3,072 MiB",
        "94\u202f%",
        "ab12" * 16,
        "d" * 64,
    ):
        assert shown in text


def test_audit_entries_about_a_rollout_stand_on_its_page_and_others_do_not(page: SignedIn) -> None:
    for number in range(200):
        page.reads.log("operator", "label", f"device/lyon-{number:04}", f"noise {number}")
    text = page.get("/rollouts/ro-paused").text
    assert "Paused in the 10 % wave" in text
    assert "noise" not in text


def test_the_audit_is_paged(page: SignedIn) -> None:
    for number in range(200):
        page.reads.log("operator", "label", "device/lyon-0001", f"entry {number:03}")
    older = re.search(r'href="(/audit\?before=\d+)"', page.get("/audit").text)
    assert older is not None
    assert "entry 120" in page.get(older[1]).text
    assert "entry 199" not in page.get(older[1]).text
    assert page.get("/audit?before=x").status == 400


def test_the_page_of_a_device_says_why_a_model_has_a_process_of_its_own(page: SignedIn) -> None:
    view = page.reads.device_views[0]
    assert "Own process" not in page.get(f"/devices/{view.name}").text
    text = isolation_text(IsolationReason.CRASHED_TWICE)
    model = msgspec.structs.replace(view.models[0], isolation="crashed_twice", isolation_text=text)
    page.reads.device_views[0] = msgspec.structs.replace(view, models=(model,))
    shown = page.get(f"/devices/{view.name}").text
    assert f"<dt>Own process</dt><dd>digits: {text} <code>crashed_twice</code></dd>" in shown


def test_what_devices_and_people_wrote_stays_text(page: SignedIn) -> None:
    reads = page.reads
    model = DeviceModel(
        model=HOSTILE,
        release=HOSTILE,
        phase=HOSTILE,
        desired=HOSTILE,
        rollout=HOSTILE,
        isolation=HOSTILE,
        isolation_text=HOSTILE,
    )
    device = msgspec.structs.replace(
        reads.device_views[0], name=HOSTILE, labels={HOSTILE: HOSTILE}, line=HOSTILE, models=(model,), profile=HOSTILE
    )  # fmt: skip
    reads.device_views.insert(0, device)
    wait = Wait(code=WaitCode.OFFLINE, text=HOSTILE, first=(HOSTILE,))
    rollout = rollout_in(Status.RUNNING)
    rollout = msgspec.structs.replace(
        rollout,
        text=HOSTILE,
        reason=HOSTILE,
        selector=HOSTILE,
        why=msgspec.structs.replace(rollout.why, line=HOSTILE, waits=(wait,)),
        evidence=msgspec.structs.replace(rollout.evidence, reasons={HOSTILE: 3}),
    )
    reads.put(rollout)
    reads.log(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    for address in (
        "/",
        "/rollouts",
        "/rollouts/ro-running",
        "/devices",
        "/audit",
        "/devices/%3Cscript%3E",
    ):
        text = page.get(address).text
        assert 'alert("1")' not in text
        assert "<script>" not in text
        found = well_formed(text)
        assert all((script.get("src") or "").startswith("/static/") for script in found.scripts)
        assert len(found.scripts) == 2
    news = page.get("/rollouts/ro-running", accept="application/vnd.edgefleet.news+json")
    for piece in msgspec.json.decode(news.body)["fragments"]:
        assert "<script>" not in piece["html"]


def test_every_template_is_on_a_page() -> None:
    folder = resources.files("edgefleet.web") / "pages" / "parts"
    there = {file.name.removesuffix(".html") for file in folder.iterdir()}
    reads = FakeReads()
    names = {"rollout": "ro-completed", "device": "lyon-0000", "model": "digits", "release": "3"}
    used = {part for _, build in PAGES for part in build(reads, Asked(names, {})).parts}
    assert there == used


def test_files_are_kept_by_browsers_for_as_long_as_they_do_not_change(page: SignedIn) -> None:
    text = page.get("/").text
    addresses = re.findall(r'"(/static/[^"]+)"', text)
    assert {address.partition("?")[0] for address in addresses} == {
        "/static/idiomorph.min.js",
        "/static/live.js",
        "/static/style.css",
        "/static/favicon.svg",
    }
    for address in addresses:
        reply = page.get(address)
        assert reply.status == 200
        assert "immutable" in reply.headers["cache-control"]
    assert page.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert page.get("/static/none.js").status == 404
    assert page.get("/static/..%2froutes.py").status == 404


def test_red_is_kept_for_what_waits_for_a_person() -> None:
    red = {status for status in Status if tone(rollout_in(status)) == "needs"}
    assert red == {Status.HALTED}
    stuck = rollout_in(Status.RUNNING)
    wait = Wait(code=WaitCode.INCONCLUSIVE, text="Neither good nor bad enough.")
    assert (
        tone(msgspec.structs.replace(stuck, why=msgspec.structs.replace(stuck.why, waits=(wait,))))
        == "needs"
    )


def test_what_waits_for_a_person_is_at_the_top(page: SignedIn) -> None:
    text = page.get("/").text
    asked = text[text.index("Needs an operator") :].split("</section>")[0]
    assert set(re.findall(r"/rollouts/ro-(\w+)", asked)) == {"planned", "paused", "halted"}


@pytest.mark.parametrize("code", WaitCode)
def test_the_page_lists_a_rollout_for_each_reason_that_needs_a_person(code: WaitCode) -> None:
    reads = FakeReads()
    view = rollout_in(Status.RUNNING)
    waits = (Wait(code=WaitCode.SOAK, text="First."), Wait(code=code, text="Then this one."))
    reads.put(msgspec.structs.replace(view, why=msgspec.structs.replace(view.why, waits=waits)))
    text = signed_in(reads).get("/").text
    assert ("Then this one." in text) is WAITS[code].needs_a_person


def test_a_quarantined_device_waits_for_a_person() -> None:
    reads = FakeReads()
    name = reads.device_views[0].name
    reads.quarantined_devices = [QuarantinedDevice(name=name, model="digits", rollbacks=2)]
    text = signed_in(reads).get("/").text
    asked = text[text.index("Needs an operator") :].split("</section>")[0]
    assert f"/devices/{name}" in asked


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (share(0.05), "5\u202f%"),
        (share(0.00033), "0.03\u202f%"),
        (share(0.000001), "< 0.01\u202f%"),
        (share(0), "0\u202f%"),
        (share(1), "100\u202f%"),
        (share(None), "\u2013"),
        (latency(640), "640 \u00b5s"),
        (latency(12_340), "12.3 ms"),
        (size(512), "512 B"),
        (size(20 * 1024 * 1024), "20.0 MiB"),
        (span(90), "1 min 30 s"),
        (span(5400), "1 h 30 min"),
        (span(0.5), "0.5 s"),
        (reason_text("confidence_drop"), "confidence dropped"),
        (reason_text("a_new_code"), "a new code"),
    ],
)
def test_figures_in_words(said: str, words: str) -> None:
    assert said == words

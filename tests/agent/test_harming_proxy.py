"""Twenty devices behind a proxy that harms 30 % of all answers: each ends on the release.

Loop, link, downloads and files are the real ones, over real HTTP. Only the runtime is a stand-in.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Generator
from functools import partial

import msgspec
import pytest

from edgefleet.agent import limits
from edgefleet.agent.agent_status import status_of
from edgefleet.agent.board import BoardSensors
from edgefleet.agent.effect import Apply
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.link import Credential, Enrolment, HubLink
from edgefleet.agent.loop import Loop, Parts
from edgefleet.agent.slots import Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.systemd import Notifier
from edgefleet.agent.trust import Trust
from edgefleet.base.clock import SystemClock
from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import HttpLink
from edgefleet.protocol.device import Offer
from edgefleet.protocol.release import Artifact
from edgefleet.protocol.serving import LiveStats, ModelStatus, ProveResult, ServingStatus
from edgefleet.security.signing import sign_manifest
from support.agent_world import FACTS, manifest
from support.device_world import KEY
from support.fake_hub import FakeHub, fake_hub
from support.harming_proxy import HARMS, HarmingProxy, harming_proxy
from support.memory_storage import MemoryStorage

DEVICES = 20
MODEL_BYTES = 400_000
INTERVAL_S = 0.2


class Runtime:
    """The prover and the supervisor of a device whose models always load."""

    def __init__(self) -> None:
        self._status: ServingStatus | None = None

    def prove(self, *_: object) -> ProveResult:
        return ProveResult(passed=True, accuracy=1.0)

    def apply(self, effect: Apply) -> ServingStatus:
        (model,) = effect.models
        wanted = model.trial or model.confirmed
        assert wanted is not None
        served = ModelStatus(
            model=model.model,
            release=wanted.installed.release,
            artifact_sha256=wanted.installed.variant.artifact.sha256,
            ready=True,
            on_trial=model.trial is not None,
            stats=LiveStats(),
        )
        self._status = ServingStatus(pid=1, models=(served,), generation=effect.generation)
        return self._status

    def status(self) -> tuple[ServingStatus | None, bool]:
        return self._status, self._status is not None

    def ran(self) -> tuple[str, ...]:
        return ()

    def ends(self) -> tuple[str, ...]:
        return ()

    def hung(self) -> bool:
        return False

    def stop(self) -> None:
        self._status = None

    def kill(self) -> None:
        return


def publish(hub: FakeHub) -> None:
    """Publish a release with a model of MODEL_BYTES, and offer it."""
    data = random.Random(1).randbytes(MODEL_BYTES)
    golden = b"golden" * 100
    found = manifest("2")
    (variant,) = found.variants
    artifact = Artifact(sha256=sha256_hex(data), size_bytes=len(data))
    golden_artifact = Artifact(sha256=sha256_hex(golden), size_bytes=len(golden))
    found = msgspec.structs.replace(
        found,
        variants=(msgspec.structs.replace(variant, artifact=artifact),),
        golden=msgspec.structs.replace(found.golden, artifact=golden_artifact),
    )
    files = {artifact.sha256: data, golden_artifact.sha256: golden}
    digest = hub.publish(sign_manifest(found, KEY), files)
    hub.interval_s = INTERVAL_S
    hub.offer = Offer(
        rollout="ro-2", action="install", model="digits", release="2", manifest_sha256=digest,
        confirm_after_s=0.1,
    )  # fmt: skip


@contextlib.contextmanager
def device(proxy: HarmingProxy, token: str, seed: int) -> Generator[None]:
    """A device that is enrolled, with its loop in a thread."""
    disk, runtime, clock = MemoryStorage(), Runtime(), SystemClock()
    credential = Credential(
        hub=proxy.url, device="device", token=token, checkin_url=proxy.url, interval_s=INTERVAL_S
    )
    enrolment = Enrolment(claim="", name="device", facts=FACTS, labels={})
    hub = HubLink(proxy.url, credential, enrolment, disk, HttpLink, entropy=SeededEntropy(seed))
    make: Callable[[Callable[[], None]], Runtime] = lambda _: runtime  # noqa: E731 - as the loop asks
    downloads = HttpLink(proxy.url)
    parts = Parts(
        slots=Slots(disk),
        hub=hub,
        fetcher=Fetcher(disk, downloads, hub.headers, clock),
        prover=runtime,  # type: ignore[arg-type] - what the loop asks of it
        make_supervisor=make,  # type: ignore[arg-type] - what the loop asks of it
        open_envelope=Trust((KEY.public.text,)).open,
        clock=clock,
        entropy=SeededEntropy(seed),
        sensors=BoardSensors(None),
        describe=partial(status_of, version="1", device="device", hub=proxy.url),
        notifier=Notifier({}, clock.monotonic),
    )
    loop = Loop(parts, AgentState(interval_s=INTERVAL_S), FACTS)
    running = threading.Thread(target=loop.run, kwargs={"keep_serving": False})
    running.start()
    try:
        yield
    finally:
        loop.stop()
        running.join(30)
        hub.close()
        downloads.close()


@pytest.mark.parametrize(
    "first", [0, *[pytest.param(seed, marks=pytest.mark.long) for seed in range(20, 400, 20)]]
)
def test_devices_behind_a_proxy_that_harms_answers_all_end_on_the_release(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROBE_TRIAL_S", 0.05)
    hubs: list[FakeHub] = []
    proxies: list[HarmingProxy] = []
    with contextlib.ExitStack() as stack:
        for seed in range(first, first + DEVICES):
            hub = stack.enter_context(fake_hub())
            hub.token = f"of {seed}"  # one wrong bit in a port leads to the hub of another device
            publish(hub)
            proxy = stack.enter_context(harming_proxy(hub.url, seed=seed, share=0.3))
            hub.url = proxy.url  # also for check-ins
            stack.enter_context(device(proxy, hub.token, seed))
            hubs.append(hub)
            proxies.append(proxy)
        for hub in hubs:
            hub.wait(lambda hub: "confirmed" in [kind for _, kind, _ in hub.kinds()])
    harmed = [harm for proxy in proxies for harm in proxy.harmed]
    assert set(harmed) == set(HARMS)
    assert len(harmed) > 0.2 * sum(proxy.answers for proxy in proxies)
    kinds = [kind for hub in hubs for _, kind, _ in hub.kinds()]
    assert (kinds.count("confirmed"), kinds.count("refused")) == (DEVICES, 0)
    assert "trial_failed" not in kinds
    ratio = sum(proxy.artifact_bytes for proxy in proxies) / (DEVICES * MODEL_BYTES)
    print(f"{ratio:.2f} times the bytes of the release")
    assert ratio <= 1.6

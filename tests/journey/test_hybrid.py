"""A fallback with real parts: it helps the client, and does not help a bad release."""

from pathlib import Path

import pytest

from support.agent_process import device
from support.bad_requests import PLANTED, Client, confirmed, finals, idle_on, reported_errors
from support.fake_hub import fake_hub
from support.serving_process import serving
from support.tiny_models import classifier

FAILS = "fails on white"  # see support/bad_runtime


@pytest.mark.long
def test_a_release_that_fails_is_rolled_back_although_its_client_saw_no_error(
    tmp_path: Path,
) -> None:
    for name in ("fallback", "cam"):
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "fallback") as fallback,
        fake_hub() as hub,
        device(tmp_path / "cam", hub) as (agent, publisher),
    ):
        fallback.activate(classifier(tmp_path / "fallback.onnx").activate("9"))
        publisher.offer("1")
        agent.start(
            "--fallback", fallback.url, "--fallback-when", "error", "--fallback-timeout-s", "30",
            "--fallback-budget", "share=100%,per-minute=60000",
            environ=PLANTED,
        )  # fmt: skip
        confirmed(hub, "1")
        with Client(agent.serve) as client:
            client.wait_for("1", 20)
            client.bad.set()
            client.wait_for("1", 20)
            refused = client.refused
            publisher.offer("2", description=FAILS, confirm_after_s=60.0)
            client.wait_for("9", 5)  # a trial is judged after about 10 requests
            hub.wait(lambda hub: finals(hub, "2"))
            agent.wait(idle_on("1"))
            client.wait_for("1", 20)
            assert client.refused == refused, "the fallback answered for the bad release"
        assert finals(hub, "2") == [("trial_failed", "inference_errors")]
        hub.wait(reported_errors)

"""The examples of docs/api.md run as they are written."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.protocol.hooks import signature
from edgefleet.protocol.operator import ClaimRequest
from support.hub_process import running_hub
from support.raw_device import enrolled

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_example_knows_a_genuine_delivery() -> None:
    (source,) = blocks("python")
    names: dict[str, Callable[..., bool]] = {}
    exec(source, names)
    is_genuine, body = names["is_genuine"], b'{"id":7}'
    header = signature("s3cret", 1_000, body)
    assert is_genuine("s3cret", header, body, now=1_200)
    assert not is_genuine("s3cret", header, body, now=1_400)  # repeated later
    assert not is_genuine("other", header, body, now=1_000)
    assert not is_genuine("s3cret", header, b'{"id":8}', now=1_000)
    assert not is_genuine("s3cret", header.replace("t=1000", "t=1001"), body, now=1_000)


@pytest.mark.long
def test_the_examples_for_the_shell_run(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        client = hub.client()
        enrolled(client, hub.url, 103, labels={"site": "lyon"})
        client.claim(ClaimRequest())
        client.close()
        environ = {**os.environ, "HUB": hub.url, "TOKEN": hub.token}
        found = [
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                env=environ, capture_output=True, text=True, check=True,
            ).stdout
            for script in blocks("sh")
        ]  # fmt: skip
    fleet, missing, listed, events, hook = found
    assert json.loads(fleet)["total"] == 103
    assert missing == "true\n"
    assert len(set(listed.split())) == 103
    assert events.count("event: device.enrol\n") == 103
    assert "fleet.claim" not in events
    assert json.loads(hook)["view"]["kinds"] == ["rollout.*", "device.quarantine"]

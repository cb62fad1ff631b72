"""The OpenAPI document: valid, complete, and true of a real hub."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from edgefleet.base.errors import CATALOG
from edgefleet.client.hub import HubClient
from edgefleet.hub.api import create_app
from edgefleet.hub.openapi import document, has_required, operations
from edgefleet.hub.openapi_examples import EXAMPLES
from edgefleet.protocol.api import ENDPOINTS
from edgefleet.protocol.permissions import NEEDS
from edgefleet.protocol.queries import QUERIES
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.wire import Wire, decode, encode
from edgefleet.security.signing import PublisherKey
from support.asgi import ask_within
from support.hub_inside import hub_inside
from support.hub_process import HubProcess, running_hub
from support.raw_device import enrolled
from support.tiny_releases import publish, tiny_release

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "reference" / "openapi.json"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "unsupported_method",
)  # fmt: skip


def read() -> dict[str, Any]:
    return msgspec.json.decode(document(), type=dict[str, Any])


def test_the_document_is_openapi() -> None:
    validate(read())
    broken = read()
    broken["paths"]["/api/v1/devices"]["get"]["parameters"][0]["in"] = "nowhere"
    with pytest.raises(OpenAPIValidationError):
        validate(broken)


def test_every_endpoint_for_operators_is_there_with_its_permission() -> None:
    found = {
        (method.upper(), path): made
        for path, item in read()["paths"].items()
        for method, made in item.items()
    }
    wanted = {(row.method, row.path): row for row in ENDPOINTS if row.role == "operator"}
    open_to_all = {("GET", "/health"), ("GET", "/api/v1/openapi.json")}
    assert found.keys() == wanted.keys() | open_to_all
    for place, row in wanted.items():
        assert found[place]["x-permission"] == NEEDS[row.name]
        assert "security" not in found[place]  # the document's: a token
    assert all(found[place]["security"] == [] for place in open_to_all)


def test_a_body_that_needs_a_field_has_an_example_of_its_type() -> None:
    bodies = {
        row.name: row.request
        for row in operations()
        if row.request is not None and issubclass(row.request, Wire)
    }
    assert {name for name, kind in bodies.items() if has_required(kind)} <= EXAMPLES.keys()
    for name, example in EXAMPLES.items():
        assert decode(encode(example), bodies[name]) == example


def test_every_code_of_an_error_is_named() -> None:
    assert read()["components"]["schemas"]["ErrorCode"]["enum"] == sorted(CATALOG)


def test_every_parameter_that_the_hub_reads_is_declared() -> None:
    source = (ROOT / "src" / "edgefleet" / "hub" / "api.py").read_text()
    got = re.findall(r'query\.(?:get|getlist)\(\s*"(\w+)"', source)
    got += re.findall(r'query_params\.get\("(\w+)"', source)
    got += re.findall(r'query_number\(request, "(\w+)"', source)
    assert set(got) == {query.name for queries in QUERIES.values() for query in queries}


def test_the_hub_serves_the_committed_document(tmp_path: Path) -> None:
    asyncio.run(_served(tmp_path))


async def _served(tmp_path: Path) -> None:
    async with hub_inside(tmp_path / "data") as hub:
        app = create_app(hub)
        served = await ask_within(app, "GET", "/api/v1/openapi.json")
        assert (served.status, served.body) == (200, FILE.read_bytes())
        assert served.headers["content-type"] == "application/json"
        # A path belongs to the route with its text, also for another method.
        wrong = await ask_within(app, "POST", "/api/v1/rollouts/ro-1/why")
        assert wrong.status == 405
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}


@contextmanager
def filled_hub(folder: Path, fault: str = "") -> Iterator[tuple[HubProcess, dict[str, str]]]:
    """A hub with devices, releases and a rollout; and the values of parameters that exist."""
    with running_hub(folder / "data", fault=fault) as hub:
        client: HubClient = hub.client()
        devices = enrolled(client, hub.url, 3, labels={"site": "lyon"})
        key = PublisherKey.generate()
        publish(client, key, tiny_release(folder, "1"))
        for device in devices:
            device.check_in()
            device.close()
        rollout = client.plan(RolloutSpec(model="digits", release="1"))
        digest = client.release("digits", "1").manifest.variants[0].artifact.sha256
        names = {"model": "digits", "release": "1", "rollout": rollout.id, "sha256": digest}
        client.close()
        yield hub, {"device": devices[0].name, **names}


def schemathesis(hub: HubProcess, folder: Path, values: dict[str, str], *only: str) -> str:
    """The report of requests made from the committed document. Empty if nothing was found."""
    config = folder / "schemathesis.toml"
    lines = [f'"path.{name}" = "{value}"' for name, value in values.items()]
    config.write_text("\n".join(["max-stream-events = 1", "[parameters]", *lines]))
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color",
            "run", str(FILE), "--url", hub.url, "--header", f"Authorization: Bearer {hub.token}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "20",
            "--generation-deterministic", "--checks", ",".join(CHECKS), "--warnings", "off", *only,
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    assert re.search(r"[1-9]\d* generated", run.stdout), run.stdout
    return run.stdout if run.returncode else ""


@pytest.mark.long
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with filled_hub(tmp_path) as (hub, values):
        assert schemathesis(hub, tmp_path, values) == ""
        assert "Traceback" not in hub.log.read_text()


BROKEN = """
async def planted(hub, request, by):
    raise KeyError("planted")
"""
OTHER = """
async def planted(hub, request, by):
    return hub.frozen()
"""
PLANTED = {
    "a handler that raises": (BROKEN, "Server error"),
    "an answer of another type": (OTHER, "Response violates schema"),
}


@pytest.mark.long
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_defect_is_found(tmp_path: Path, planted: str) -> None:
    handler, named = PLANTED[planted]
    fault = f"{handler}\nimport edgefleet.hub.api as api\napi.OPERATED['fleet'] = planted\n"
    with filled_hub(tmp_path, fault) as (hub, values):
        found = schemathesis(hub, tmp_path, values, "--include-operation-id", "fleet")
        assert named in found

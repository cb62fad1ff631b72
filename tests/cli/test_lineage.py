"""``model show --lineage``: the document that the signed manifest names."""

from hashlib import sha256

from msgspec.structs import replace

from edgefleet.protocol.release import Artifact
from edgefleet.protocol.wire import encode
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.fake_reads import FakeReads
from support.lineages import digest, statement

DOCUMENT = encode(statement([digest("a")]))
SHA256 = sha256(DOCUMENT).hexdigest()


def put(canned: CannedHub, document: bytes) -> None:
    view = FakeReads().release("digits", "2")
    named = Artifact(sha256=SHA256, size_bytes=len(DOCUMENT))
    view = replace(view, manifest=replace(view.manifest, lineage=named))
    canned.put("GET", "/api/v1/models/digits/releases/2", view)
    canned.put("GET", f"/api/v1/artifacts/{SHA256}", document)


def test_it_is_shown_for_people_and_programs(fleet: CommandLine, canned: CannedHub) -> None:
    put(canned, DOCUMENT)
    said = fleet("model", "show", "digits", "2", "--lineage")
    assert said.exit == 0, said.err
    assert "made     2026-09-21T14:13:20Z to 2026-09-21T14:14:21Z" in said.out
    assert "mlflow_run 0f3a, accuracy 0.975" in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("p0 "))
    assert row.split() == [
        "p0", digest("a")[:16], "onnx", "static_int8", "11.7", "KiB", "0.9735", "0.9750", "3.93x",
        "4.10x",
    ]  # fmt: skip
    shown = fleet("model", "show", "digits", "2", "--lineage", "--json").json
    assert shown["subject"][0]["digest"]["sha256"] == digest("a")
    assert SHA256 in fleet("model", "show", "digits", "2").out


def test_other_bytes_than_the_manifest_names_are_refused(
    fleet: CommandLine, canned: CannedHub
) -> None:
    put(canned, DOCUMENT.replace(b"0.9735", b"0.9999"))
    said = fleet("model", "show", "digits", "2", "--lineage")
    assert "transfer_damaged" in said.err
    assert said.exit != 0


def test_a_release_without_one_says_so(fleet: CommandLine) -> None:
    said = fleet("model", "show", "digits", "2", "--lineage")
    assert "Release digits 2 has no lineage document." in said.err
    assert "setting_invalid" in fleet("model", "show", "digits", "--lineage").err

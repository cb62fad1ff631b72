"""The lineage document: what it says, that a release is bound to it, and that old agents read on."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.errors import PublisherError
from edgefleet.cli.model.lineage import lineage_lines
from edgefleet.examples import FOLDER
from edgefleet.optimize.lineage import (
    LINEAGE_FILE,
    tool_versions,
    write_lineage,
)
from edgefleet.optimize.machine import machine_facts
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.lineage import LINEAGE_BYTES, read_lineage
from edgefleet.protocol.release import Golden, Quality, ReleaseManifest, Task, Variant
from edgefleet.protocol.wire import Wire, decode, encode
from edgefleet.security.signing import PublisherKey, open_manifest, sign_manifest
from support.lineages import digest, statement


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The release digits 2, with a lineage of its variants."""
    made = shutil.copytree(FOLDER / "digits" / "release-2", tmp_path / "digits-2")
    artifacts = [one.artifact.sha256 for one in build_release(made, created_at=0).manifest.variants]
    write_lineage(made, statement(artifacts))
    toml = made / "release.toml"
    toml.write_text(f'lineage = "{LINEAGE_FILE}"\n' + toml.read_text())
    return made


def test_the_document_is_an_in_toto_statement_with_slsa_provenance() -> None:
    read = json.loads(encode(statement([digest("a")])))
    assert read["_type"] == "https://in-toto.io/Statement/v1"
    assert read["predicateType"] == "https://slsa.dev/provenance/v1"
    assert read["subject"] == [{"name": "int8-0.onnx", "digest": {"sha256": digest("a")}}]
    build = read["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {"model": "digits", "release": "2", "profiles": ["p0"]}
    assert build["internalParameters"]["recipes"] == {"p0": "onnx static_int8"}
    assert not build["externalParameters"].keys() & build["internalParameters"].keys()
    assert [one["name"] for one in build["resolvedDependencies"]] == [
        "source model",
        "parent 1",
        "calibration data",
        "evaluation data",
    ]
    assert build["resolvedDependencies"][0]["annotations"] == {
        "mlflow_run": "0f3a",
        "accuracy": 0.975,
    }
    run = read["predicate"]["runDetails"]
    assert run["metadata"]["startedOn"] == "2026-09-21T14:13:20Z"
    assert run["builder"]["version"]["onnxruntime"] == "1.23.0"


def test_single_cases_stay_out_of_the_document() -> None:
    (one,) = statement([digest("a")]).predicate.edgefleet_evaluation
    assert one.judgement is not None
    candidate = one.judgement["candidate"]
    assert isinstance(candidate, dict)
    assert (candidate["value"], "cases" in candidate) == (0.9735, False)


def test_it_reads_back_as_it_was_written() -> None:
    made = statement([digest("a"), digest("b")])
    assert encode(read_lineage(encode(made))) == encode(made)


def test_the_provenance_of_another_tool_is_read() -> None:
    """Optional fields are missing, a dependency has another digest, null means not set."""
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m.onnx", "digest": {"sha256": digest("a"), "sha512": "00"}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://example.com/build/v1",
                "externalParameters": {"ref": "refs/heads/main"},
                "internalParameters": None,
                "resolvedDependencies": [
                    {"uri": "git+https://example.com/m@main", "digest": {"gitCommit": "7fd1"}}
                ],
            },
            "runDetails": {"builder": {"id": "https://example.com/builder"}, "byproducts": []},
        },
    }
    read = read_lineage(json.dumps(document).encode())
    build, run = read.predicate.build_definition, read.predicate.run_details
    assert (read.subject[0].sha256, run.metadata.started_on) == (digest("a"), "")
    assert (build.internal_parameters, read.predicate.edgefleet_evaluation) == ({}, ())
    shown = lineage_lines(read)
    assert any("git+https://example.com/m@main  gitCommit:7fd1" in line for line in shown)


def test_a_subject_without_a_digest_is_refused() -> None:
    document = encode(statement([digest("a")])).replace(
        b'"digest":{"sha256":"' + digest("a").encode() + b'"}', b'"uri":"x"', 1
    )
    with pytest.raises(PublisherError, match="subjects has no digest"):
        read_lineage(document)


def test_a_release_folder_with_a_lineage_names_it_in_the_signed_manifest(folder: Path) -> None:
    built = build_release(folder, created_at=0)
    written = (folder / LINEAGE_FILE).read_bytes()
    assert built.manifest.lineage is not None
    assert built.manifest.lineage.sha256 == sha256(written).hexdigest()
    assert built.files[built.manifest.lineage.sha256] == (folder / LINEAGE_FILE).resolve()
    key = PublisherKey.generate()
    opened = open_manifest(sign_manifest(built.manifest, key), {key.public.keyid: key.public})
    assert opened.manifest.lineage == built.manifest.lineage


def test_a_lineage_of_other_files_is_refused(folder: Path) -> None:
    write_lineage(folder, statement([digest("other")]))
    with pytest.raises(PublisherError, match="None of its subjects is the variant for") as caught:
        build_release(folder, created_at=0)
    assert (caught.value.code, caught.value.field) == ("release_file_invalid", "lineage")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{}", "missing required field"),
        (b"no JSON", "JSON is malformed"),
        (b" " * (LINEAGE_BYTES + 1), "bytes are allowed|are allowed"),
    ],
)
def test_what_is_no_statement_is_refused(data: bytes, text: str, folder: Path) -> None:
    (folder / LINEAGE_FILE).write_bytes(data)
    with pytest.raises(PublisherError, match=text) as caught:
        build_release(folder, created_at=0)
    assert caught.value.code == "release_file_invalid"


def test_a_lineage_outside_of_the_folder_is_refused(folder: Path) -> None:
    toml = folder / "release.toml"
    toml.write_text(toml.read_text().replace(LINEAGE_FILE, "../lineage.json"))
    with pytest.raises(PublisherError, match="outside the release folder"):
        build_release(folder, created_at=0)


class ManifestBefore(Wire, frozen=True, kw_only=True):
    """The manifest as agents of the version before know it."""

    model: str
    release: str
    variants: tuple[Variant, ...]
    golden: Golden
    quality: Quality | None
    created_at: float
    parent: str | None = None
    notes: str = ""
    task: Task = "classification"
    changes_interface: bool = False


def test_an_agent_of_the_version_before_reads_a_manifest_with_a_lineage(folder: Path) -> None:
    manifest = build_release(folder, created_at=0).manifest
    old = decode(encode(manifest), ManifestBefore)
    assert old.variants == manifest.variants
    new = decode(encode(old), ReleaseManifest)
    assert new == msgspec.structs.replace(manifest, lineage=None)


def test_the_facts_of_this_machine_name_no_person_and_no_host() -> None:
    facts = machine_facts()
    assert set(facts) == {"system", "architecture", "cores", "cpu", "instructions"}
    assert tool_versions().keys() >= {"python", "edgefleet", "onnx", "onnxruntime"}

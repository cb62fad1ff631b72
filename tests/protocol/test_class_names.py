"""Names of classes: of a file, in a manifest, and for an agent that does not know them."""

import base64

import msgspec
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.class_names import (
    CLASS_FILE_BYTES,
    NAME_CHARS,
    NAMES,
    NAMES_BYTES,
    check_names,
    names_text,
    read_names,
)
from edgefleet.protocol.interface import interface_changes
from edgefleet.protocol.release import ClassNames, ReleaseManifest, TensorSpec
from edgefleet.security.signing import PublisherKey, open_manifest, sign_manifest
from edgefleet.testing import fake_manifest

TEN = tuple(f"digit-{one}" for one in range(10))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 10))


def manifest(*classes: ClassNames, output: TensorSpec = Y) -> ReleaseManifest:
    made = fake_manifest("digits", "1", ("a",), now=1.0)
    variants = tuple(replace(one, outputs=(output,)) for one in made.variants)
    return replace(made, variants=variants, classes=classes)


def named(*names: str, output: str = "y") -> ClassNames:
    return ClassNames(output=output, names=names)


def refusal(given: ReleaseManifest) -> PublisherError:
    with pytest.raises(PublisherError) as caught:
        check_names(given)
    assert caught.value.code == "release_file_invalid"
    return caught.value


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\n dog \r\n\r\n", ("cat", "dog")),
        ("crane\ncrane\nmaçã: rot".encode(), ("crane", "crane", "maçã: rot")),
        ("a\u3000b\nc\u200cd\u00a0e".encode(), ("a\u3000b", "c\u200cd\u00a0e")),
    ],
)
def test_a_file_has_one_name_a_line(data: bytes, names: tuple[str, ...]) -> None:
    assert read_names(data, "classes.txt", "classes.y") == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "classes.txt, line 1: the name is empty."),
        (b"cat\n\ndog\n", "classes.txt, line 2: the name is empty."),
        (b"cat\ndog\n\xff\n", "classes.txt, line 3 is not UTF-8."),
        (b"cat\nd\x1b[2Jog\n", "classes.txt, line 2: the name 'd\\x1b[2Jog' has a control character."),
        (b"cat\n" + b"x" * 257, "classes.txt, line 2: the name has 257 characters; 256 are allowed."),
        (b"x" * (CLASS_FILE_BYTES + 1), "classes.txt has more than 131,072 bytes."),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(PublisherError) as caught:
        read_names(data, "classes.txt", "classes.y")
    assert (caught.value.message, caught.value.field) == (message, "classes.y")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (manifest(named(*TEN[:9])), "9 names for output 'y' of variants[0], which has 10."),
        (manifest(named()), "0 names; 1 to 10,000 are allowed."),
        (manifest(named(*["x"] * (NAMES + 1))), "10001 names; 1 to 10,000 are allowed."),
        (manifest(named(*TEN[:9], "")), "The name of class 9: the name is empty."),
        (manifest(named(*TEN[:9], " a")), "The name of class 9: the name has white space around it."),
        (manifest(named(*TEN[:9], "a\n")), "The name of class 9: the name has white space around it."),
        (manifest(named(*TEN), named(*TEN)), "Output 'y' has names twice."),
        (
            manifest(named(*TEN), output=replace(Y, datatype="BYTES")),
            "Output 'y' of variants[0] is BYTES [-1, 10], which has no classes.",
        ),
        (
            manifest(named(*TEN), output=replace(Y, shape=(-1,))),
            "Output 'y' of variants[0] is FP32 [-1], which has no classes.",
        ),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_the_release_are_refused(
    given: ReleaseManifest, message: str
) -> None:
    error = refusal(given)
    assert (error.message, error.field) == (message, "classes.y")


def test_the_names_of_a_release_are_bounded_together() -> None:
    wide = replace(Y, shape=(-1, 300))
    names = named(*["x" * NAME_CHARS] * 300)
    error = refusal(manifest(names, output=wide))
    assert f"76,800 bytes; {NAMES_BYTES:,} are allowed" in error.message
    check_names(manifest(named(*["x" * 200] * 300), output=wide))
    assert refusal(manifest(named(*TEN, output="z"))).field == "classes.z"


def test_names_fit_an_output_with_an_open_number_of_classes() -> None:
    check_names(manifest(named("a", "b"), output=replace(Y, shape=(-1, -1))))
    check_names(manifest(named(*TEN)))
    check_names(manifest())


def test_the_names_are_shown_with_their_output() -> None:
    assert names_text(manifest(named(*TEN))) == "10 of y: digit-0, digit-1, digit-2, ..."
    assert names_text(manifest(named("a", "b"))) == "2 of y: a, b"


def test_a_class_with_another_name_is_a_change_of_the_interface() -> None:
    before = manifest(named("a", "b"))
    assert interface_changes(before, manifest(named("a", "c"))) == (
        "Class 1 of output y is 'c', not 'b'.",
    )
    assert interface_changes(before, manifest()) == (
        "The classes of output y have no names any more.",
    )
    assert interface_changes(manifest(), before) == ()
    assert interface_changes(before, before) == ()


def test_an_agent_that_does_not_know_the_names_reads_the_manifest() -> None:
    """A reader ignores fields of a manifest that it does not know: so did agents before names."""
    key = PublisherKey.generate()
    envelope = sign_manifest(manifest(named(*TEN)), key)
    read = msgspec.json.decode(base64.b64decode(envelope.payload))
    assert read["classes"] == [{"output": "y", "names": list(TEN)}]
    later = msgspec.json.encode(read | {"field_of_a_later_version": 1})
    assert msgspec.json.decode(later, type=ReleaseManifest).classes == (named(*TEN),)
    opened = open_manifest(envelope, {key.public.keyid: key.public})
    assert opened.manifest.classes == (named(*TEN),)
    del read["classes"]  # a publisher of before
    assert msgspec.json.decode(msgspec.json.encode(read), type=ReleaseManifest).classes == ()

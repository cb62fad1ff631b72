import msgspec
import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError, OperatorError, PublisherError
from edgefleet.protocol import device, operator, release, rollout, serving, why
from edgefleet.protocol.api import BY_NAME, ENDPOINTS
from edgefleet.protocol.device import CheckIn, CheckInAnswer, ModelReport, Phase, digest
from edgefleet.protocol.version import OLDEST, PROTOCOL, check_protocol
from edgefleet.protocol.wire import Wire, decode, encode, error_from_answer, problem

WIRE_TYPES = sorted(
    {
        kind
        for module in (device, operator, release, rollout, serving, why)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Wire) and kind is not Wire
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", WIRE_TYPES, ids=lambda kind: kind.__name__)
def test_what_goes_over_the_wire_is_frozen(kind: type[Wire]) -> None:
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"protocol": 1, "seq": 0}', "seq"),
        (b'{"protocol": "1", "seq": 1}', "protocol"),
        (b'{"protocol": 1}', None),
        (b'{"protocol": 1, "seq": 1, "phase": "flying"}', "phase"),
        (b'{"protocol": 1, "seq": 1, "telemetry": {"release": "1", "requests": -1}}', "telemetry"),
        (b'{"protocol": 1, "seq": 1, "more": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", None),
        (b"[]", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_a_malformed_check_in_names_its_field(body: bytes, field: str | None) -> None:
    with pytest.raises(DeviceError) as caught:
        decode(body, CheckIn, code="checkin_malformed")
    assert caught.value.code == "checkin_malformed"
    if field:
        assert field in (caught.value.field or "")


def test_a_newer_peer_may_say_more() -> None:
    said = decode(b'{"protocol": 1, "seq": 9, "mood": "fine"}', CheckIn)
    assert said == CheckIn(protocol=1, seq=9)


def test_a_problem_travels_and_comes_back_typed() -> None:
    error = PublisherError("digest_mismatch", "Bytes differ.", field="artifact")
    back = error_from_answer(422, encode(problem(error)))
    assert type(back) is PublisherError
    assert (back.code, back.field, back.hint) == (error.code, error.field, error.hint)


def test_an_answer_of_something_else_is_said_to_be_malformed() -> None:
    assert error_from_answer(502, b"<html>").code == "answer_malformed"


def test_protocols_outside_the_window_are_refused() -> None:
    for version in range(OLDEST, PROTOCOL + 1):
        check_protocol(version)
    for version in (OLDEST - 1, PROTOCOL + 1):
        with pytest.raises(DeviceError) as caught:
            check_protocol(version)
        assert caught.value.code == "protocol_unsupported"


def test_endpoint_names_and_routes_are_unique() -> None:
    assert len(BY_NAME) == len(ENDPOINTS)
    routes = {(row.method, row.path) for row in ENDPOINTS}
    assert len(routes) == len(ENDPOINTS)


def test_only_health_and_the_document_of_the_api_are_open() -> None:
    """The document has no word of this hub: it is in the docs, too."""
    assert [row.name for row in ENDPOINTS if row.role == "anyone"] == ["health", "openapi"]


def test_errors_of_the_operator_are_the_default() -> None:
    with pytest.raises(OperatorError):
        decode(b"1", rollout.RolloutSpec)
    assert msgspec.json.decode(encode(rollout.RolloutSpec(model="m", release="1")))["waves"] == [
        {"percent": 1},
        {"percent": 10},
        {"percent": 100},
    ]


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"code": "\xff"}', b'{"next_seq": -5}', b'{"next_seq": %d}' % (2**63 - 1)],
)
def test_an_answer_that_is_no_problem_is_a_typed_error(body: bytes) -> None:
    assert error_from_answer(500, body).code == "answer_malformed"


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (
            device.Telemetry,
            b'{"release":"1","requests":1%s,"errors":0,"confidence_sum":1,"confidence_count":1,'
            b'"latency_us_p50":1,"latency_us_p95":1,"memory_mib":1}' % (b"0" * 400),
            "requests",
        ),
        (device.EnrolAnswer, b'{"device":"d","token":"a\\nb"}', "token"),
        (device.EnrolAnswer, b'{"device":"d","token":"a\\n"}', "token"),
        (release.Artifact, b'{"sha256":"../../x","size_bytes":1}', "sha256"),
        (release.Artifact, b'{"sha256":"%s\\n","size_bytes":1}' % (b"a" * 64), "sha256"),
    ],
)
def test_what_would_break_the_reader_further_on_is_refused(
    kind: type[Wire], body: bytes, field: str
) -> None:
    with pytest.raises(OperatorError) as refused:
        decode(body, kind)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"model":"m","release":"1","windws":[]}', "windws"),
        (b'{"model":"m","release":"1","gate":{"max_eror_rate":1}}', "gate.max_eror_rate"),
        (b'{"model":"m","release":"1","waves":[{"percnt":1}]}', "waves[0].percnt"),
        (b'{"model":"m","release":"1","budgets":[{"label":"a","most":1}]}', "budgets[0].most"),
    ],
)
def test_an_unknown_field_of_a_plan_is_refused_by_name(body: bytes, field: str) -> None:
    with pytest.raises(OperatorError) as caught:
        decode(body, rollout.RolloutSpec)
    assert caught.value.field == field
    assert "correct its name" in caught.value.hint


MODELS = tuple(ModelReport(model=f"model-{number}", release=f"{number}.0") for number in range(8))


@pytest.mark.parametrize("count", [0, 1, 8])
def test_a_heartbeat_has_at_most_50_bytes_for_any_number_of_models(count: int) -> None:
    heartbeat = CheckIn(protocol=PROTOCOL, seq=123_456, digest=digest(MODELS[:count]))
    assert len(encode(heartbeat)) <= 50
    assert len(encode(CheckInAnswer(interval_s=60.0))) <= 20


def test_the_digest_depends_on_each_release_and_phase_and_not_on_the_order() -> None:
    changed = (
        MODELS[:7],
        (*MODELS[:7], ModelReport(model="model-7", release="7.1")),
        (*MODELS[:7], ModelReport(model="model-7", release="7.0", phase=Phase.TRIAL)),
        (*MODELS[:7], ModelReport(model="model-8", release="7.0")),
    )
    assert len({digest(MODELS), *map(digest, changed)}) == 5
    assert digest(reversed(MODELS)) == digest(MODELS)


def test_a_model_that_is_not_on_the_device_is_not_in_the_digest() -> None:
    assert digest((*MODELS, ModelReport(model="gone"))) == digest(MODELS)
    first = ModelReport(model="new", phase=Phase.FETCHING)
    assert digest((*MODELS, first)) != digest(MODELS)


OLD_FACTS = b'{"profile":"x","agent_version":"1","runtimes":["onnx"],"arch":"","memory_mib":1}'


def test_facts_of_an_older_agent_name_no_isolated_model() -> None:
    assert decode(OLD_FACTS, device.Facts).isolated == ()


def test_an_older_hub_reads_facts_with_an_isolated_model() -> None:
    class OldFacts(Wire, frozen=True, kw_only=True):
        """The facts before they named isolated models."""

        profile: str
        agent_version: str
        memory_mib: int = 0

    isolated = device.Isolation(model="digits", reason=device.IsolationReason.CRASHED_TWICE)
    new = replace(decode(OLD_FACTS, device.Facts), isolated=(isolated,))
    assert decode(encode(new), device.Facts) == new
    assert decode(encode(new), OldFacts) == OldFacts(profile="x", agent_version="1", memory_mib=1)


def test_facts_of_an_older_agent_have_no_versions_comparisons_and_datatypes() -> None:
    old = decode(OLD_FACTS, device.Facts)
    assert (old.runtime_versions, old.comparisons, old.datatypes) == ((), (), ())


@pytest.mark.parametrize("reason", list(device.IsolationReason))
def test_each_reason_for_a_process_of_its_own_has_words(reason: str) -> None:
    assert reason not in device.isolation_text(reason)
    assert device.isolation_text(reason).startswith("It runs in a process of its own, because ")


def test_a_reason_of_a_newer_agent_is_shown_as_it_is() -> None:
    assert "because the agent says too_hot." in device.isolation_text("too_hot")
    assert device.isolation_text("") == ""

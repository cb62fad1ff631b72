"""Late labels at the serving process: recent answers, the endpoint for local programs, the counts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet.base.network import HttpLink
from edgefleet.protocol.labels import (
    Label,
    Labelled,
    LabelReport,
    ModelLabels,
    ModelTruth,
    ReleaseLabels,
    Truth,
)
from edgefleet.protocol.serving import ServedModel, Truths
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving import answers as memory
from edgefleet.serving.answers import Answers
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels

INFER = "/v2/models/digits/infer"
TRUTH = "/v2/models/digits/truth"


def scores(*classes: int) -> np.ndarray[Any, Any]:
    """Scores of a batch whose items have these top classes."""
    return np.eye(10, dtype=np.float32)[list(classes)]


def counts(report: LabelReport | None) -> dict[str, tuple[int, int]]:
    assert report is not None
    (model,) = report.models
    return {one.release: (one.labelled, one.correct) for one in model.releases}


def test_a_label_counts_for_the_release_that_gave_the_answer_also_after_the_switch() -> None:
    answers = Answers()
    answers.add("digits", "1", "a", scores(3))
    answers.add("digits", "2", "b", scores(3))
    answers.label("digits", [Label(id="a", truth=3), Label(id="b", truth=4)])
    assert counts(answers.report()) == {"1": (1, 1), "2": (1, 0)}


def test_an_answer_takes_its_first_label_only() -> None:
    answers = Answers()
    answers.add("digits", "1", "a", scores(3))
    assert answers.label("digits", [Label(id="a", truth=3)]) == Labelled(labelled=1, correct=1)
    again = [Label(id="a", truth=3), Label(id="a", truth=4)]
    assert answers.label("digits", again) == Labelled(repeated=2)
    assert counts(answers.report()) == {"1": (1, 1)}


def test_a_batch_takes_a_class_for_each_item() -> None:
    answers = Answers()
    answers.add("digits", "1", "a", scores(3, 4, 5))
    assert answers.label("digits", [Label(id="a", truth=3)]) == Labelled(unmatched=1)
    found = answers.label("digits", [Label(id="a", truth=(3, 9, 5))])
    assert found == Labelled(labelled=3, correct=2)


def test_a_label_without_its_answer_is_counted_as_unmatched() -> None:
    answers = Answers(size=4)
    for number in range(6):
        answers.add("digits", "1", f"r{number}", scores(1))
    found = answers.label("digits", [Label(id=f"r{number}", truth=1) for number in range(8)])
    assert found == Labelled(labelled=4, correct=4, unmatched=4)
    report = answers.report()
    assert report is not None
    assert report.models[0].unmatched == 4


def test_an_id_that_names_two_requests_labels_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    for now in (1.0, 2.0):
        monkeypatch.setattr(memory.time, "time", lambda now=now: now)
        answers.add("digits", "1", "same", scores(1))
    assert answers.label("digits", [Label(id="same", truth=1)]) == Labelled(unmatched=1)


def test_a_span_labels_all_answers_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(size=8)
    for number in range(11):  # the ring has gone round
        monkeypatch.setattr(memory.time, "time", lambda number=number: float(number))
        answers.add("digits", "1", f"r{number}", scores(number % 2))
    span = Label(since=5.0, until=8.0, truth=1)
    assert answers.label("digits", [span]) == Labelled(labelled=4, correct=2)
    assert answers.label("digits", [span]) == Labelled(repeated=4)
    assert answers.label("digits", [Label(since=0.0, until=1.0, truth=1)]) == Labelled(unmatched=1)


def test_the_counts_are_of_the_newest_four_releases() -> None:
    answers = Answers()
    for number in range(6):
        answers.add("digits", str(number), f"r{number}", scores(1))
        answers.label("digits", [Label(id=f"r{number}", truth=1)])
    assert list(counts(answers.report())) == ["2", "3", "4", "5"]


def test_more_releases_than_a_ring_can_name_forget_the_answers_before() -> None:
    answers = Answers()
    for number in range(300):
        answers.add("digits", str(number), f"r{number}", scores(1))
    old, new = Label(id="r3", truth=1), Label(id="r299", truth=1)
    assert answers.label("digits", [old, new]) == Labelled(labelled=1, correct=1, unmatched=1)
    assert counts(answers.report()) == {"299": (1, 1)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def process(tmp_path: Path, model: TinyModel) -> Iterator[ServingProcess]:
    with serving(tmp_path) as running:
        running.activate(model.activate("7"))
        yield running


def infer(process: ServingProcess, **more: Any) -> dict[str, Any]:
    data = pixels(1)
    tensor = {
        "name": "pixels", "shape": list(data.shape), "datatype": "FP32",
        "data": data.reshape(-1).tolist(),
    }  # fmt: skip
    body = json.dumps({**more, "inputs": [tensor]}).encode()
    answer = HttpLink(process.url).request("POST", INFER, body=body)
    assert answer.status == 200
    return dict(json.loads(answer.body))


def top(answer: dict[str, Any]) -> int:
    return int(np.argmax(answer["outputs"][0]["data"]))


def test_a_local_program_labels_an_answer_by_the_id_that_the_server_made(
    process: ServingProcess,
) -> None:
    first, second = infer(process), infer(process, id="mine")
    assert first["id"] not in ("", "mine")
    labels = (Label(id=first["id"], truth=top(first)), Label(id="mine", truth=top(second) + 1))
    link = HttpLink(process.url)
    answer = link.request("POST", TRUTH, body=encode(Truth(labels=labels)))
    assert decode(answer.body, Labelled) == Labelled(labelled=2, correct=1)
    report = process.status().labels
    assert report is not None
    assert report.models == (
        ModelLabels(model="digits", releases=(ReleaseLabels(release="7", labelled=2, correct=1),)),
    )
    metrics = link.request("GET", "/metrics").body.decode()
    assert 'edgefleet_inference_labelled_total{model="digits",release="7"} 2' in metrics
    assert 'edgefleet_inference_correct_total{model="digits",release="7"} 1' in metrics


def test_labels_of_the_hub_count_once_with_those_of_a_local_program(
    process: ServingProcess,
) -> None:
    answer = infer(process)
    label = Label(id=answer["id"], truth=top(answer))
    HttpLink(process.url).request("POST", TRUTH, body=encode(Truth(labels=(label,))))
    truths = Truths(truth=(ModelTruth(number=1, model="digits", label=label),))
    sent = process.control.request("POST", "/control/truth", body=encode(truths))
    assert decode(sent.body, Labelled) == Labelled(repeated=1)


def test_a_label_that_the_hub_sends_again_counts_once(process: ServingProcess) -> None:
    def deliver(*numbers: int) -> Labelled:
        label = Label(id="forgotten", truth=1)
        truths = tuple(ModelTruth(number=one, model="digits", label=label) for one in numbers)
        sent = process.control.request("POST", "/control/truth", body=encode(Truths(truth=truths)))
        return decode(sent.body, Labelled)

    assert deliver(1) == Labelled(unmatched=1)
    assert deliver(1, 2) == Labelled(unmatched=1)
    assert deliver(2, 1) == Labelled()
    report = process.status().labels
    assert report is not None
    assert report.models == (ModelLabels(model="digits", unmatched=2),)


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ('{"labels": []}', "labels", "length"),
        ('{"labels": [{"truth": 1}]}', "labels[0]", "Give an id, or both since and until."),
        ('{"labels": [{"id": "a", "since": 1.0, "truth": 1}]}', "labels[0]", "not both"),
        ('{"labels": [{"since": 2.0, "until": 1.0, "truth": 1}]}', "labels[0]", "after until"),
        ('{"labels": [{"since": 1.0, "until": 2.0, "truth": [1]}]}', "labels[0]", "one class"),
        ('{"labels": [{"id": "a", "truth": -1}]}', "labels[0].truth", "int"),
        (encode({"labels": [{"id": "a" * 257, "truth": 1}]}).decode(), "labels[0].id", "length"),
        (encode({"labels": [{"id": "a", "truth": 1}] * 1001}).decode(), "labels", "length"),
    ],
)
def test_a_wrong_label_is_refused_with_its_field(
    process: ServingProcess, body: str, field: str, text: str
) -> None:
    answer = HttpLink(process.url).request("POST", TRUTH, body=body.encode())
    problem = json.loads(answer.body)
    assert (answer.status, problem["field"]) == (400, field)
    assert text in problem["error"]


def test_labels_of_a_model_that_is_not_served_are_refused(process: ServingProcess) -> None:
    body = encode(Truth(labels=(Label(id="a", truth=1),)))
    answer = HttpLink(process.url).request("POST", "/v2/models/other/truth", body=body)
    assert answer.status == 404


def test_an_empty_set_of_models_forgets_no_label(process: ServingProcess, model: TinyModel) -> None:
    answer = infer(process)
    served: ServedModel = model.activate("8")
    process.activate(served)
    body = encode(Truth(labels=(Label(id=answer["id"], truth=top(answer)),)))
    HttpLink(process.url).request("POST", TRUTH, body=body)
    assert counts(process.status().labels) == {"7": (1, 1)}

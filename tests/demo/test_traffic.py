"""A client of the demo counts every failure and never retries."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgefleet.cli.demo.traffic import Client, read_questions
from edgefleet.examples import FOLDER

ASKED = read_questions("digits", FOLDER / "digits" / "field.npz")
QUESTIONS = ASKED.cases
Respond = Callable[["Serving", dict], None]


class Serving(BaseHTTPRequestHandler):
    """Answers with the test's function; each request body is in ``server.asked``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.path == "/v2/models/digits/ready"
        self.say(200 if self.server.ready.is_set() else 503, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(body)
        self.server.respond(self, json.loads(body))
        if len(self.server.asked) >= 6:
            self.server.enough.set()

    def say(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_said: object) -> None:
        pass


def answer(label: int, release: str = "2", classes: int = 10) -> dict:
    scores = [0.9 if place == label else 0.01 for place in range(classes)]
    return {"model_version": release, "outputs": [{"shape": [1, classes], "data": scores}]}


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    made.ready, made.enough, made.asked = threading.Event(), threading.Event(), []
    made.ready.set()
    thread = threading.Thread(target=made.serve_forever, args=[0.02])
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(server: ThreadingHTTPServer, respond: Respond) -> Client:
    server.respond = respond
    client = Client("edge", "127.0.0.1", server.server_port, ASKED)
    client.start()
    assert server.enough.wait(20)
    client.stop()
    assert client.requests == len(server.asked)
    return client


def test_right_answers_are_counted_by_the_release_that_gave_them(
    server: ThreadingHTTPServer,
) -> None:
    def respond(serving: Serving, _question: dict) -> None:
        number = len(server.asked) - 1
        label = QUESTIONS[number].label if number % 2 == 0 else (QUESTIONS[number].label + 1) % 10
        serving.say(200, answer(label, release="1" if number < 3 else "2"))

    observed = ask(server, respond).observed()
    assert observed.failed == 0
    assert sum(observed.answered.values()) == observed.requests
    assert (observed.answered["1"], observed.right["1"]) == (3, 2)
    assert observed.last == "2"


def test_the_questions_are_what_the_camera_saw() -> None:
    said = json.loads(QUESTIONS[0].body)["inputs"][0]
    assert (said["name"], said["datatype"], said["shape"]) == ("pixels", "FP32", [1, 64])
    assert len(said["data"]) == 64
    assert len({question.label for question in QUESTIONS}) == ASKED.classes == 10


def test_each_model_is_asked_its_own_questions() -> None:
    parity = read_questions("parity", FOLDER / "parity" / "field.npz")
    assert (parity.model, parity.classes) == ("parity", 2)
    assert [asked.label for asked in parity.cases] == [asked.label % 2 for asked in QUESTIONS]


def reset(serving: Serving, _question: dict) -> None:
    serving.close_connection = True
    serving.connection.shutdown(socket.SHUT_RDWR)


FAILURES: dict[str, Respond] = {
    "an error": lambda serving, _: serving.say(503, {"error": "busy"}),
    "a success of another kind": lambda serving, _: serving.say(202, answer(1)),
    "a wrong shape": lambda serving, _: serving.say(200, answer(1, classes=9)),
    "no output": lambda serving, _: serving.say(200, {"model_version": "2", "outputs": []}),
    "no version": lambda serving, _: serving.say(200, {"outputs": []}),
    "a broken connection": reset,
}


@pytest.mark.parametrize("what", FAILURES)
def test_every_failure_counts_and_nothing_is_asked_again(
    server: ThreadingHTTPServer, what: str
) -> None:
    def respond(serving: Serving, question: dict) -> None:
        if len(server.asked) == 2:
            FAILURES[what](serving, question)
        else:
            serving.say(200, answer(QUESTIONS[len(server.asked) - 1].label))

    observed = ask(server, respond).observed()
    assert observed.failed == 1
    assert observed.first_failure
    assert server.asked[:6] == [question.body for question in QUESTIONS[:6]]


def test_nothing_is_asked_before_the_first_release_is_ready(server: ThreadingHTTPServer) -> None:
    server.ready.clear()
    server.respond = lambda serving, _: serving.say(200, answer(1))
    client = Client("edge", "127.0.0.1", server.server_port, ASKED)
    client.start()
    assert not server.enough.wait(0.3)
    assert client.requests == 0
    server.ready.set()
    assert server.enough.wait(20)
    client.stop()
    assert client.failed == 0

"""Single inferences against a server of Open Inference Protocol v2."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.client.inference.model_info import ModelInfo, error_of_answer
from edgefleet.client.inference.tensors import EncodedRequest, InferAnswer, decode_answer

GENERATION: Final = "edgefleet-generation"
ANSWERED_BY: Final = "edgefleet-answered-by"


def server_url(address: str) -> str:
    """The URL of ``HOST:PORT`` or of a whole URL. Raises OperatorError ``setting_invalid``."""
    text = address.strip().rstrip("/")
    url = text if "://" in text else f"http://{text}"
    scheme, _, rest = url.partition("://")
    host, colon, port = rest.rpartition(":")
    valid = scheme in ("http", "https") and "/" not in rest and "@" not in rest
    if not valid or not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise OperatorError(
            "setting_invalid",
            f"{address!r} is not HOST:PORT.",
            field="--address",
            hint="Fix `--address`: use 127.0.0.1:8500 or http://camera-1:8500.",
        )
    return url


class InferenceClient:
    """One connection to the inference port of a device.

    Each method raises NetworkError if the server gives no valid answer, else the error of the
    answer, see ``error_of_answer``.
    """

    def __init__(self, address: str, model: str, release: str | None, timeout_s: float) -> None:
        self.url = server_url(address)
        self.path = f"/v2/models/{quote(model, safe='')}"
        if release is not None:
            self.path += f"/versions/{quote(release, safe='')}"
        self._link = HttpLink(self.url)
        self._timeout_s = timeout_s

    def model(self) -> ModelInfo:
        """The inputs and outputs of the model."""
        answer = self._checked(self._link.request("GET", self.path, timeout_s=self._timeout_s))
        try:
            return msgspec.json.decode(answer.body, type=ModelInfo)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NetworkError(
                "answer_malformed",
                f"{self.url}{self.path} does not describe a model: {error}.",
                hint="Check --address: its server does not speak Open Inference Protocol v2.",
            ) from error

    def infer(self, request: EncodedRequest) -> tuple[InferAnswer, Mapping[str, str]]:
        """The answer to ``request``, and its headers by lower-case name."""
        answer = self._link.request(
            "POST",
            f"{self.path}/infer",
            headers=request.headers,
            body=request.body,
            timeout_s=self._timeout_s,
        )
        answer = self._checked(answer)
        return decode_answer(answer.headers, answer.body), answer.headers

    def close(self) -> None:
        self._link.close()

    @staticmethod
    def _checked(answer: Answer) -> Answer:
        if answer.status != 200:
            raise error_of_answer(answer.status, answer.body)
        return answer

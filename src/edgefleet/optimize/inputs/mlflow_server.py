"""Fetches a model from an MLflow server, over its REST API. The package mlflow is not needed.

The server must serve the artifacts itself, as ``mlflow server`` does by default: credentials of a
bucket are not used. Only the files that are read later are fetched.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from edgefleet.base.errors import NetworkError, OperatorError, PublisherError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.optimize.inputs.mlflow_address import (
    LoggedModel,
    RegisteredModel,
    RunModel,
    parsed,
)
from edgefleet.serving.limits import MODEL_BYTES

TRACKING_VARIABLE: Final = "MLFLOW_TRACKING_URI"
_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_PROXIED: Final = "mlflow-artifacts"
_TIMEOUT_S: Final = 60.0
_FILES: Final = 200
_LINKS: Final = 4  # from a version to where its files are
_FACTS: Final = 200  # parameters, and as many metrics, that the lineage gets
_FACT_CHARS: Final = 500
_SKIPPED: Final = ("conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta")
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pth", ".pt")


@dataclass(frozen=True, slots=True)
class _Place:
    """The folder of a model among the artifacts, and what the lineage says of it."""

    uri: str
    facts: Mapping[str, object] = field(default_factory=dict)
    run_id: str = ""


class MlflowServer:
    """An MLflow server at ``tracking_uri``, for one thread. Close it after use."""

    def __init__(self, tracking_uri: str, environ: Mapping[str, str] = os.environ) -> None:
        if urlsplit(tracking_uri).scheme not in ("http", "https"):
            raise OperatorError(
                "setting_invalid",
                f"{tracking_uri!r} is no address of an MLflow server."
                if tracking_uri
                else "The model is on an MLflow server, and no server is named.",
                field="tracking-uri",
                hint=f"Give --tracking-uri http://HOST:PORT, or set {TRACKING_VARIABLE}. For a "
                "folder of files, name the folder of the model.",
            )
        self._link = HttpLink(tracking_uri)
        self._base = urlsplit(tracking_uri).path.rstrip("/")
        self._headers = _credentials(environ)

    def close(self) -> None:
        self._link.close()

    def fetch(self, address: str, folder: Path) -> dict[str, object]:
        """Fetch the model at ``address`` into the new ``folder``. Returns facts for the lineage.

        Raises PublisherError ``not_a_model`` for a model that the server has not, or keeps
        elsewhere, ``model_unsupported`` over the limits; NetworkError; OperatorError.
        """
        wanted = parsed(address)
        place = self._place(wanted, address)
        for _ in range(_LINKS):
            if not place.uri.startswith("models:/"):
                break
            linked = self._place(parsed(place.uri), address)
            place = _Place(
                linked.uri, {**linked.facts, **place.facts}, place.run_id or linked.run_id
            )
        self._download(_path_of(place.uri, address), folder)
        run = self._run_facts(place.run_id) if place.run_id else {}
        return {"mlflow_address": address, **place.facts, **run}

    def _place(self, wanted: RegisteredModel | LoggedModel | RunModel, address: str) -> _Place:
        match wanted:
            case RegisteredModel(name=name, alias=alias, version=version):
                answer = (
                    self._get("/registered-models/alias", address, name=name, alias=alias)
                    if alias
                    else self._get("/model-versions/get", address, name=name, version=version)
                )
                found = _mapping(answer, "model_version")
                number = str(found.get("version", ""))
                uri = self._get(
                    "/model-versions/get-download-uri", address, name=name, version=number
                )
                facts = {"mlflow_model": name, "mlflow_model_version": number}
                run_id = str(found.get("run_id") or "")
                return _Place(str(uri.get("artifact_uri", "")), facts, run_id)
            case LoggedModel(model_id=model_id):
                answer = self._get(f"/logged-models/{quote(model_id, safe='')}", address)
                info = _mapping(_mapping(answer, "model"), "info")
                run_id = str(info.get("source_run_id") or "")
                return _Place(str(info.get("artifact_uri", "")), {}, run_id)
            case RunModel(run_id=run_id, path=path):
                return self._of_run(run_id, path, address)

    def _of_run(self, run_id: str, path: str, address: str) -> _Place:
        """MLflow 3 keeps a model beside its run, under its name; earlier ones inside of it."""
        run = _mapping(self._get("/runs/get", address, run_id=run_id), "run")
        for one in _list(_mapping(run, "outputs", missing={}), "model_outputs"):
            model_id = str(one.get("model_id", ""))
            answer = self._get(f"/logged-models/{quote(model_id, safe='')}", address)
            info = _mapping(_mapping(answer, "model"), "info")
            if info.get("name") == path:
                return _Place(str(info.get("artifact_uri", "")), {}, run_id)
        uri = str(_mapping(run, "info").get("artifact_uri", ""))
        return _Place(f"{uri}/{path}", {}, run_id)

    def _run_facts(self, run_id: str) -> dict[str, object]:
        """The parameters and the last metrics of the run."""
        run = _mapping(self._get("/runs/get", f"run {run_id}", run_id=run_id), "run")
        data = _mapping(run, "data", missing={})
        facts: dict[str, object] = {"mlflow_run_id": run_id}
        for name in ("params", "metrics"):
            entries = _list(data, name)
            kept = {str(one.get("key", "")): _short(one.get("value")) for one in entries[:_FACTS]}
            if kept:
                facts[f"mlflow_{name}"] = kept
            if len(entries) > _FACTS:
                facts[f"mlflow_{name}_left_out"] = len(entries) - _FACTS
        return facts

    def _download(self, path: str, folder: Path) -> None:
        """Fetch the files below ``path``, but for environments and pickles."""
        waiting, found = [path], list[tuple[str, str]]()
        while waiting:
            place = waiting.pop()
            query = urlencode({"path": place})
            for one in _list(self._json(f"{_ARTIFACTS}?{query}", path), "files"):
                name = str(one.get("path", ""))
                if not name or "/" in name or "\\" in name or name in (".", ".."):
                    raise NetworkError("answer_malformed", f"The server lists a file {name!r}.")
                below = f"{place}/{name}"
                if one.get("is_dir"):
                    waiting.append(below)
                elif name not in _SKIPPED and not name.endswith(_PICKLES):
                    found.append((below, below.removeprefix(f"{path}/")))
                if len(found) + len(waiting) > _FILES:
                    raise _too_large(f"it has more than {_FILES} files and folders")
        if not any(name == "MLmodel" for _, name in found):
            raise _missing(f"The server has no MLflow model in {path}: no file MLmodel.")
        left = MODEL_BYTES
        for place, name in found:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            left -= self._file(place, folder / name, left)

    def _file(self, place: str, made: Path, left: int) -> int:
        """Write one file. Returns its bytes."""
        url = f"{self._base}{_ARTIFACTS}/{quote(place)}"
        answer = self._link.download(url, headers=self._headers, timeout_s=_TIMEOUT_S)
        if answer.status != 200:
            raise _refused(answer.status, b"", place)
        count = 0
        with made.open("xb") as file:
            for piece in answer.chunks:
                count += len(piece)
                if count > left:
                    raise _too_large(f"it has more than {MODEL_BYTES:,} bytes")
                file.write(piece)
        return count

    def _get(self, path: str, what: str, **query: str) -> Mapping[str, Any]:
        return self._json(f"{_API}{path}?{urlencode(query)}", what)

    def _json(self, path: str, what: str) -> Mapping[str, Any]:
        answer: Answer = self._link.request(
            "GET", f"{self._base}{path}", headers=self._headers, timeout_s=_TIMEOUT_S
        )
        if answer.status != 200:
            raise _refused(answer.status, answer.body, what)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise NetworkError(
                "answer_malformed", f"{self._link.url} does not answer as an MLflow server."
            ) from error
        if not isinstance(found, dict):
            raise NetworkError("answer_malformed", "The answer of the server is no JSON object.")
        return found


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """As the client of MLflow takes them from the environment."""
    user, token = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        pair = f"{user}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _path_of(uri: str, address: str) -> str:
    """The path below the server's artifacts."""
    parts = urlsplit(uri)
    path = parts.path.strip("/")
    if parts.scheme != _PROXIED or not path or ".." in path.split("/"):
        raise PublisherError(
            "not_a_model",
            f"The files of {address} are not on the server, but at {parts.scheme or 'no'} address.",
            field="model",
            hint=f"Fetch them with your credentials: mlflow artifacts download -u {address} "
            "-d model; then name the folder.",
        )
    return path


def _short(value: object) -> object:
    return value[:_FACT_CHARS] if isinstance(value, str) else value


def _mapping(
    answer: Mapping[str, Any], key: str, *, missing: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    found = answer.get(key, missing)
    if not isinstance(found, dict):
        raise NetworkError("answer_malformed", f"The answer of the server has no {key!r}.")
    return found


def _list(answer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found: Iterable[Any] = answer.get(key, ())
    return [one for one in found if isinstance(one, dict)]


def _refused(status: int, body: bytes, what: str) -> Exception:
    if status in (401, 403):
        return OperatorError(
            "setting_invalid",
            f"The MLflow server refuses the credentials ({status}).",
            field="tracking-uri",
            hint="Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD.",
        )
    if status in (400, 404):
        try:
            words = str(json.loads(body).get("message", ""))[:_FACT_CHARS]
        except (ValueError, AttributeError, RecursionError):
            words = ""
        return _missing(f"The MLflow server has no {what}. {words}".strip())
    return NetworkError("answer_malformed", f"The MLflow server answered {status} to {what}.")


def _missing(message: str) -> PublisherError:
    return PublisherError(
        "not_a_model", message, field="model", hint="Check the address and --tracking-uri."
    )


def _too_large(words: str) -> PublisherError:
    return PublisherError(
        "model_unsupported",
        f"The model is too large: {words}.",
        field="model",
        hint="Log the ONNX model alone.",
    )

"""The OpenAPI 3.1 document of the operator API, made from the table of endpoints and its types."""

import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Final

import msgspec

from edgefleet import __version__
from edgefleet.base.errors import CATALOG
from edgefleet.hub.openapi_examples import EXAMPLES
from edgefleet.protocol.api import ENDPOINTS, Endpoint
from edgefleet.protocol.people import least_role
from edgefleet.protocol.permissions import NEEDS
from edgefleet.protocol.queries import QUERIES, Query
from edgefleet.protocol.rollout import Verb
from edgefleet.protocol.wire import Problem, Wire

Json = dict[str, object]

_JSON: Final = "application/json"
_NAME: Final = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_PARAMETERS: Final[dict[str, Json]] = {
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "verb": {"type": "string", "enum": list(Verb)},
    "kind": {"type": "string", "enum": ["devices", "models", "releases", "rollouts"]},
    "user": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._@+-]{0,61}[a-z0-9])?$"},
}
"""The schemas of parameters in paths that are not names."""

_ABOUT: Final = (
    "The API of an edgefleet hub for operators, programs and CI. Errors have a stable `code`; "
    "lists come in pages with opaque cursors. docs/api.md is the guide."
)


def operations() -> tuple[Endpoint, ...]:
    """The endpoints of the document: all but those of devices, which have a client: the agent."""
    return tuple(row for row in ENDPOINTS if row.role in ("operator", "anyone"))


@cache
def document() -> bytes:
    """The document as JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=1) + b"\n"


def _document() -> Json:
    kinds = {
        kind
        for row in operations()
        for kind in (row.request, row.answer)
        if kind is not None and issubclass(kind, Wire)
    }
    _, schemas = msgspec.json.schema_components(
        sorted(kinds | {Problem}, key=lambda kind: kind.__name__),
        schema_hook=_any_json,
        ref_template="#/components/schemas/{name}",
    )
    schemas["ErrorCode"] = {
        "type": "string",
        "description": "Stable. A later version may have more.",
        "enum": sorted(CATALOG),
    }
    schemas["Problem"]["properties"]["code"] = {"$ref": "#/components/schemas/ErrorCode"}
    paths: dict[str, Json] = {}
    for row in operations():
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgefleet",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The main listener of the hub."}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Problem": _problem(), "TooManyRequests": _too_many()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token of a user, or the operator token of the hub.",
                }
            },
        },
    }


def _any_json(kind: type) -> Json:
    """The schema of a type that msgspec has none for: ``object`` is any JSON value."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _operation(row: Endpoint) -> Json:
    made: Json = {
        "operationId": row.name,
        "summary": row.text,
        "tags": [row.path.removeprefix("/api/v1").split("/")[1]],
        "parameters": [*map(_in_path, re.findall(r"\{(\w+)\}", row.path)), *_in_query(row)],
        "responses": _responses(row),
    }
    if row.role == "anyone":
        made["security"] = []
    else:
        made["x-permission"] = NEEDS[row.name]
        made["x-least-role"] = least_role(NEEDS[row.name])
    if row.request is not None:
        made["requestBody"] = _body(row)
    return made


def _responses(row: Endpoint) -> Json:
    if row.method == "HEAD":
        return {
            "200": {"description": "It is there."},
            "default": {"description": "An error. An answer to HEAD has no body."},
        }
    content = _content(row.answer, row.media)
    found: Json = {"200": {"description": "Done.", "content": content}}
    if row.is_ranged:
        found["206"] = {"description": "The range.", "content": content}
    if row.role != "anyone":
        found["429"] = {"$ref": "#/components/responses/TooManyRequests"}
    return found | {"default": {"$ref": "#/components/responses/Problem"}}


def _body(row: Endpoint) -> Json:
    """The body of a request. One whose fields all have defaults may be absent."""
    kind = row.request
    if kind is None or not issubclass(kind, Wire):
        return {"required": True, "content": {"application/octet-stream": {}}}
    content = _content(kind, _JSON)
    if (example := EXAMPLES.get(row.name)) is not None:
        content[_JSON]["example"] = msgspec.to_builtins(example)
    return {"required": has_required(kind), "content": content}


def has_required(kind: type[Wire]) -> bool:
    """Whether a body of this type needs a field."""
    return any(field.required for field in msgspec.structs.fields(kind))


def _content(kind: type[Wire] | type[bytes], media: str) -> dict[str, Json]:
    """What a body of this type has, by media type."""
    if issubclass(kind, Wire):
        return {_JSON: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    return {media: {}}


def _in_path(name: str) -> Json:
    schema = _PARAMETERS.get(name, {"type": "string", "pattern": _NAME})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(row: Endpoint) -> Iterator[Json]:
    for query in QUERIES.get(row.name, ()):
        schema = _query_schema(query)
        if query.is_repeated:
            schema = {"type": "array", "items": schema, "maxItems": 16}
        yield {"name": query.name, "in": "query", "description": query.text, "schema": schema}


def _query_schema(query: Query) -> Json:
    match query.kind:
        case "number":
            return {"type": "integer", "minimum": query.least, "maximum": query.most}
        case "flag":
            return {"type": "boolean"}
        case "text" if query.values:
            return {"type": "string", "enum": list(query.values)}
        case "text":
            return {"type": "string", "maxLength": query.most}


def _problem() -> Json:
    return {
        "description": "An error: which party must act, on which field, and how.",
        "content": {
            _JSON: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": {
                    "code": "not_found",
                    "message": "There is no device cam-9.",
                    "party": CATALOG["not_found"].party.value,
                    "retry": CATALOG["not_found"].retry.value,
                    "field": None,
                    "hint": CATALOG["not_found"].hint,
                },
            }
        },
    }


def _too_many() -> Json:
    status = HTTPStatus(CATALOG["too_many_requests"].status)
    seconds = {"type": "integer", "minimum": 1}
    header = {"description": "Seconds until the next request.", "schema": seconds}
    return {
        **_problem(),
        "description": f"{status.phrase}: this principal is above its rate.",
        "headers": {"Retry-After": header},
    }

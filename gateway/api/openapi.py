"""Generates the OpenAPI 3.1 document from the table of operations and the types that validate bodies."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec

from gateway import __version__
from gateway.api.operation import Operation
from gateway.api.operations import OPERATIONS
from gateway.api.problem import MEDIA_TYPE, Kind, Problem

OpenApiObject: TypeAlias = dict[str, Any]

_SCHEMAS: Final = "#/components/schemas/{name}"
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
}
_DESCRIPTION: Final = (
    "What backends, probes and scrapers call. JSON in and out; errors are problem documents "
    "(RFC 9457) whose `type` names the kind. Calls below `/v1` need an API key with their scope."
)


@cache
def document() -> OpenApiObject:
    """The whole document; shared, so not to be changed."""
    types = [Problem]
    for operation in OPERATIONS:
        bodies = (operation.body, *(answer.body for answer in operation.answers.values()))
        types += [body for body in bodies if body is not None and body not in types]
    references, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    schema_of = _Schemas(types, references)
    paths: defaultdict[str, OpenApiObject] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }


class _Schemas:
    """Looks up the reference to a type's schema; annotated types need not be hashable."""

    def __init__(self, types: list[Any], references: Iterable[OpenApiObject]) -> None:
        self._pairs = list(zip(types, references, strict=True))

    def __call__(self, wanted: Any) -> OpenApiObject:  # noqa: ANN401 - a type or an annotated one
        return next(reference for kind, reference in self._pairs if kind == wanted)


def _operation(operation: Operation, schema_of: _Schemas) -> OpenApiObject:
    described: OpenApiObject = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    if operation.scope is not None:
        described["security"] = [{scheme: [operation.scope]} for scheme in _SECURITY]
    if parameters := list(_parameters(operation)):
        described["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": schema_of(operation.body), "example": json.loads(operation.example)}
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    described["responses"] = _answers(operation, schema_of) | _problems(operation, schema_of)
    return described


def _parameters(operation: Operation) -> Iterator[OpenApiObject]:
    places = (
        ("path", operation.segments),
        ("query", operation.query),
        ("header", operation.headers),
    )
    for place, parameters in places:
        for name, text in parameters.items():
            described: OpenApiObject = {"name": name, "in": place, "description": text}
            if place == "path":
                described["required"] = True
            yield described | {"schema": {"type": "string"}}


def _answers(operation: Operation, schema_of: _Schemas) -> OpenApiObject:
    answers: OpenApiObject = {}
    for status, answer in operation.answers.items():
        content: OpenApiObject = {}
        if answer.body is not None:
            content["schema"] = schema_of(answer.body)
        if answer.example:
            content["example"] = json.loads(answer.example)
        answers[str(status)] = {
            "description": answer.description,
            "content": {answer.media: content},
        }
    return answers


def _problems(operation: Operation, schema_of: _Schemas) -> OpenApiObject:
    """One response per status; several kinds may share one."""
    kinds: defaultdict[int, list[Kind]] = defaultdict(list)
    for kind in operation.problems:
        kinds[kind.status].append(kind)
    return {
        str(status): _problem_response(kinds[status], schema_of(Problem))
        for status in sorted(kinds)
    }


def _problem_response(kinds: list[Kind], schema: OpenApiObject) -> OpenApiObject:
    response: OpenApiObject = {
        "description": " ".join(f"`{kind.slug}`: {kind.title}." for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    headers = {name: value for kind in kinds for name, value in kind.headers.items()}
    if headers:
        response["headers"] = {
            name: {"schema": {"type": "string"}, "example": value}
            for name, value in headers.items()
        }
    return response

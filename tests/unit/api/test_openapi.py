"""The API's description agrees with itself, with the routes, and with the types that validate."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from gateway.api.openapi import document
from gateway.api.operation import Operation
from gateway.api.operations import OPERATIONS
from tests.unit.api.fakes import KINDS, Gateway

DOCS = Path(__file__).parents[3] / "docs" / "api.md"


def references(value: Any) -> Iterator[str]:
    """All ``$ref`` in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def described() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation in the document."""
    return [
        (method.upper(), path, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


async def test_document_is_served_as_it_is(gateway: Gateway) -> None:
    response = await gateway.client.get("/openapi.json")

    assert response.content_type == "application/json"
    assert await response.json() == json.loads(json.dumps(document()))


def test_document_has_what_openapi_asks_for() -> None:
    api = json.loads(json.dumps(document()))

    assert api["openapi"].startswith("3.1.")
    assert {"title", "version"} <= api["info"].keys()
    assert all(path.startswith("/") for path in api["paths"])
    names = [operation["operationId"] for _, _, operation in described()]
    assert len(names) == len(set(names))
    schemes = api["components"]["securitySchemes"].keys()
    for _, _, operation in described():
        assert operation["summary"]
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert response["description"]
        for requirement in operation.get("security", []):
            assert requirement.keys() <= schemes


def test_the_official_validator_finds_nothing() -> None:
    validate(json.loads(json.dumps(document())), cls=OpenAPIV31SpecValidator)


def test_references_lead_somewhere() -> None:
    found = set(references(document()))

    assert found
    for reference in found:
        place: Any = document()
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_property_is_described() -> None:
    for name, schema in document()["components"]["schemas"].items():
        assert schema["description"], name
        for field, each in schema["properties"].items():
            assert each.get("description"), f"{name}.{field}"


def test_publish_request_states_its_bounds() -> None:
    schema = document()["components"]["schemas"]["PublishRequest"]

    assert schema["additionalProperties"] is False
    assert schema["required"] == ["event", "payload"]
    assert schema["properties"]["payload"]["type"] == "object"
    assert schema["properties"]["topic"]["maxLength"] == 255
    assert schema["properties"]["topics"]["maxItems"] == 1000
    body = document()["paths"]["/v1/publish"]["post"]["requestBody"]["content"]["application/json"]
    targets = ["topic", "topics", "user", "users"]
    assert body["schema"]["oneOf"] == [{"required": [target]} for target in targets]


async def test_every_route_is_described_and_every_description_has_a_route(gateway: Gateway) -> None:
    routes = {
        (route.method, route.resource.canonical)
        for route in gateway.app.router.routes()
        if route.resource is not None and route.method not in {"HEAD", "*"}
    }

    assert routes == {(method, path) for method, path, _ in described()}


def test_all_below_v1_needs_a_scope_and_nothing_else_does() -> None:
    for method, path, operation in described():
        assert path.startswith("/v1/") == ("security" in operation), f"{method} {path}"


def test_kinds_of_problems_are_described_somewhere() -> None:
    # 404 and 405 belong to no operation, but to paths and methods there are none for.
    told = {kind.slug for operation in OPERATIONS for kind in operation.problems}

    assert told | {"not-found", "method-not-allowed"} == {kind.slug for kind in KINDS}


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.body is not None], ids=lambda each: each.name
)
async def test_request_examples_work(gateway: Gateway, operation: Operation) -> None:
    answer = await gateway.post(operation.path, operation.example, X_API_Key="schlüssel")

    assert answer.status in operation.answers
    assert gateway.relay.published or gateway.directory.asked or gateway.revoker.revoked


def test_answer_examples_have_the_answer_types() -> None:
    for operation in OPERATIONS:
        for answer in operation.answers.values():
            if answer.body is not None:
                msgspec.json.decode(answer.example, type=answer.body, strict=True)


def test_docs_name_every_operation() -> None:
    text = DOCS.read_text("utf-8")

    for method, path, _ in described():
        assert f"`{method} {path}`" in text

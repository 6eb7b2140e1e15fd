"""Renders the OpenAPI and the AsyncAPI document as one HTML page that loads nothing from elsewhere."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from gateway.api.asyncapi import AsyncApiObject, async_document
from gateway.api.openapi import OpenApiObject, document

_TEMPLATE: Final = Path(__file__).with_name("docs.html")

_BOUNDS: Final = (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items"))


@cache
def page() -> str:
    """The page as HTML; it is the same for the life of the process."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"prose": _prose, "kind": _kind, "bounds": _bounds, "pretty": _pretty}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        api=document(),
        operations=_operations(),
        curl=_curl,
        socket=async_document(),
        frames=_frames(),
    )


def _operations() -> dict[str, list[OpenApiObject]]:
    """All operations by tag, in the document's order."""
    by_tag: dict[str, list[OpenApiObject]] = {}
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            entry = operation | {"path": path, "method": method.upper()}
            by_tag.setdefault(operation["tags"][0], []).append(entry)
    return by_tag


def _frames() -> list[AsyncApiObject]:
    """The socket's frames, each with an example in version 2 and, where there is one, in version 1."""
    described = async_document()
    messages = described["components"]["messages"]
    return [
        {
            "name": name,
            "action": operation["action"],
            "summary": operation["summary"],
            "replies": [
                each["$ref"].rpartition("/")[2]
                for each in operation.get("reply", {}).get("messages", ())
            ],
            "bytes": messages[f"{name}V2"]["payload"].get("description"),
            "examples": [
                json.dumps(example["payload"], ensure_ascii=False)
                for version in ("V2", "V1")
                for example in messages.get(f"{name}{version}", {}).get("examples", ())
            ],
        }
        for name in described["channels"]["socketV2"]["messages"]
        for operation in [described["operations"][f"{name}V2"]]
    ]


def _curl(operation: OpenApiObject) -> str:
    """A call to copy into a shell; the page puts its own address in place of ``$GATEWAY``."""
    lines = [f"curl -X {operation['method']} $GATEWAY{operation['path']}"]
    if operation["method"] == "GET":
        lines = [f"curl $GATEWAY{operation['path']}"]
    if "security" in operation:
        lines.append('-H "Authorization: Bearer $API_KEY"')
    if "requestBody" in operation:
        example = operation["requestBody"]["content"]["application/json"]["example"]
        lines.append("-H 'Content-Type: application/json'")
        lines.append(f"-d '{json.dumps(example)}'")
    return " \\\n  ".join(lines)


def _prose(text: str) -> Markup:
    """Text with `code` in backticks."""
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _kind(schema: OpenApiObject) -> Markup:
    """The type of a schema, with links to named ones."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "anyOf" in schema:
        return Markup(" or ").join(_kind(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return Markup("array of {}").format(_kind(schema["items"]))
    return escape(schema.get("type", "any"))


def _bounds(schema: OpenApiObject) -> str:
    """The limits of a schema in words."""
    return ", ".join(
        f"{schema.get(least, 0)} to {schema[most]:,} {what}"
        for least, most, what in _BOUNDS
        if most in schema
    )


def _pretty(value: Any) -> str:  # noqa: ANN401 - any JSON
    return json.dumps(value, indent=2, ensure_ascii=False)

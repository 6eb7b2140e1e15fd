"""Checks frames against the AsyncAPI document."""

from typing import Any

from jsonschema import Draft7Validator

Document = dict[str, Any]


def validator(document: Document, schema: Document) -> Draft7Validator:
    """Of a schema of the document, which may refer to others there."""
    return Draft7Validator({"allOf": [schema], "components": document["components"]})

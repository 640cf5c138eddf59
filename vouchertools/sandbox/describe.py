"""The OpenAPI description of the sandbox, made from the models of the bodies."""

from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from vouchertools.sandbox.bodies import Problem
from vouchertools.sandbox.operations import Operation

_REFUSALS = {
    "400": "Malformed, or an id that does not exist or is in the wrong state",
    "401": "The tokens are invalid",
    "413": "The body is too large",
    "429": "Over the request limit of the access token",
}
_HEADERS = {
    "Request-Id": "Identifies the request; errors repeat it as RequestId",
    "Date": "The sandbox's clock",
    "Vouchertools-Sandbox": "The id of this sandbox",
}


def describe(operations: Sequence[Operation], prefix: str) -> dict[str, Any]:
    """Describe the operations under ``prefix`` as an OpenAPI 3.1 document."""
    models: list[Any] = [Problem]
    models += [model for operation in operations for model in (operation.request, operation.answer)]
    references, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = {model: schema for (model, _), schema in references.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vouchertools sandbox",
            "version": "1",
            "description": "A local server that speaks the voucher-code part of the Mews Connector API.",
        },
        "paths": {
            prefix + operation.name: {"post": _describe_one(operation, schemas)} for operation in operations
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _describe_one(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    refusals = dict(_REFUSALS)
    if operation.name == "voucherCodes/add":
        refusals["403"] = "A business rule refuses it"
    responses: dict[str, Any] = {
        "200": {
            "description": "Success",
            "headers": _headers(),
            "content": {"application/json": {"schema": schemas[operation.answer]}},
        },
        "204": {"description": "Success without content, where it is preferred", "headers": _headers()},
    }
    for status, description in refusals.items():
        responses[status] = {
            "description": description,
            "headers": _headers(),
            "content": {"application/json": {"schema": schemas[Problem]}},
        }
    responses["429"]["headers"]["Retry-After"] = {
        "description": "Seconds to wait; not always there",
        "schema": {"type": "integer", "minimum": 0},
    }
    return {
        "operationId": operation.name.replace("/", "_"),
        "summary": operation.summary,
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "description": "return=minimal: 204 instead of an empty page or an empty success",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas[operation.request]}},
        },
        "responses": responses,
    }


def _headers() -> dict[str, Any]:
    return {
        name: {"description": description, "required": True, "schema": {"type": "string"}}
        for name, description in _HEADERS.items()
    }

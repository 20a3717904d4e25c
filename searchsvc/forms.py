"""Requests as forms: the fields of a model as text, since that is all that a form holds; pictures beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from core.errors import InvalidRequest

Json = dict[str, Any]

FILE: Json = {"type": "string", "format": "binary", "description": "a picture"}

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_DECIMAL = re.compile(r"-?[0-9]{0,9}\.?[0-9]{1,20}([eE]-?[0-9]{1,2})?")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

_Kind = Literal["string", "integer", "number", "boolean", "json"]


def options_of(model: type[BaseModel], fields: Mapping[str, str]) -> Json:
    """A form's fields in the types of the model's: numbers where numbers belong, objects as JSON. An empty field was not filled in.

    What cannot be converted stays text, which the validation then refuses by the field's name. Raises InvalidRequest for broken JSON.
    """
    kinds = _kinds(model)
    return {name: _typed(name, kinds.get(name, "string"), value) for name, value in fields.items() if value.strip()}


def form_schema(model: type[BaseModel], *, ref_template: str, most_files: int) -> Json:
    """The form as OpenAPI describes it, with `file` for the pictures."""
    properties: Json = model.model_json_schema(ref_template=ref_template)["properties"]
    kinds = _kinds(model)
    file: Json = FILE if most_files == 1 else {"type": "array", "items": FILE, "maxItems": most_files}
    described = {name: _field(kinds[name], schema) for name, schema in properties.items()}
    return {"type": "object", "additionalProperties": False, "properties": {"file": file, **described}}


def _typed(name: str, kind: _Kind, value: str) -> Any:
    trimmed = value.strip()
    if kind == "integer" and _INTEGER.fullmatch(trimmed):
        return int(trimmed)
    if kind == "number" and _DECIMAL.fullmatch(trimmed):
        return float(trimmed)
    if kind == "boolean":
        return _TRUTH.get(trimmed.lower(), value)
    if kind == "json":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{name}: must be JSON", field=name) from None
    return value


@cache
def _kinds(model: type[BaseModel]) -> Mapping[str, _Kind]:
    return {name: _kind(_without_null(schema)) for name, schema in model.model_json_schema()["properties"].items()}


def _kind(schema: Json) -> _Kind:
    given = schema.get("type")
    return given if given in ("string", "integer", "number", "boolean") else "json"


def _without_null(schema: Json) -> Json:
    kept = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(kept) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key not in ("anyOf", "default")}, **kept[0]}


def _field(kind: _Kind, schema: Json) -> Json:
    plain = {key: value for key, value in _without_null(schema).items() if key != "title"}
    if kind != "json":
        return plain
    description = plain.pop("description", "")
    plain.pop("default", None)
    told = f"{description}; as JSON text" if description else "as JSON text"
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": plain, "description": told}

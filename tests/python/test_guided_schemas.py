# SPDX-License-Identifier: Apache-2.0
"""Public JSON Schemas: each answer parses and validates, or the schema is refused by keyword.

``tests/golden/guided_schemas.json`` says where each comes from. Reference: the ``jsonschema``
package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from manymind import GenerationConfig, Pipeline
from manymind.errors import InvalidParameterError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "guided_schemas.json"
SCHEMAS: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["schemas"]
KEPT = [item for item in SCHEMAS if "refused" not in item]
REFUSED = [item for item in SCHEMAS if "refused" in item]


def as_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def test_every_answer_parses_and_validates(smollm2: Pipeline) -> None:
    formats = [as_format(item["schema"]) for item in KEPT]
    least = [smollm2.runtime.guides.compile(form).draws_to_end for form in formats]
    configs = [
        GenerationConfig(
            response_format=form,
            max_new_tokens=minimum + 24,
            do_sample=True,
            temperature=1.0,
            random_seed=seed,
        )
        for seed, (form, minimum) in enumerate(zip(formats, least, strict=True))
    ]
    answers = smollm2([f"Write an example of {item['name']}." for item in KEPT], configs)
    for item, answer in zip(KEPT, answers, strict=True):
        schema = item["schema"]
        known = schema if isinstance(schema, dict) else {}
        validator = jsonschema.validators.validator_for(known, jsonschema.Draft202012Validator)
        validator(schema).validate(json.loads(answer.text))
        assert answer.finish_reason == "stop", item["name"]


@pytest.mark.parametrize("item", REFUSED, ids=[item["name"] for item in REFUSED])
def test_what_cannot_be_kept_is_refused_by_keyword(smollm2: Pipeline, item: Any) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        smollm2("x", GenerationConfig(response_format=as_format(item["schema"])))
    assert item["refused"] in str(caught.value)


INTO_ANNOTATIONS: list[dict[str, Any]] = [
    {
        "properties": {"a": {"$ref": "#/examples/0"}},
        "required": ["a"],
        "examples": [{"enum": [7], "format": "of my own", "title": "Seven"}],
    },
    {
        "properties": {"b": {"$ref": "#/default/any/thing"}},
        "required": ["b"],
        "default": {"any": {"thing": {"const": {"title": "kept"}}}},
    },
]


@pytest.mark.parametrize("schema", INTO_ANNOTATIONS, ids=["examples", "default"])
def test_a_reference_may_lead_into_an_annotation(smollm2: Pipeline, schema: Any) -> None:
    """Which are dropped otherwise."""
    schema = {"type": "object", "additionalProperties": False, **schema}
    config = GenerationConfig(response_format=as_format(schema), max_new_tokens=40)
    jsonschema.Draft202012Validator(schema).validate(json.loads(smollm2("x", config).text))


def test_what_a_reference_leads_to_is_examined_as_well(smollm2: Pipeline) -> None:
    within = [{"any": [{"type": "object", "minProperties": 5}]}]
    schema = {"$ref": "#/examples/0/any/0", "examples": within}
    with pytest.raises(InvalidParameterError, match=r"examples\[0\]\.any\[0\]\.minProperties"):
        smollm2("x", GenerationConfig(response_format=as_format(schema)))
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    form = as_format({"$ref": "#/examples/0", "examples": deep})
    with pytest.raises(InvalidParameterError, match="within each other"):
        smollm2("x", GenerationConfig(response_format=form))

# SPDX-License-Identifier: Apache-2.0
"""From wherever a text of JSON stands, what its guide knows as the way to its end leads there,
though the guide seldom asks the grammar about all of it. References: ``json`` and ``jsonschema``.
"""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from manymind import Pipeline
from manymind.errors import InvalidParameterError
from manymind.guided.compiler import library_path, token_texts
from manymind.guided.formats import grammar_of
from manymind.guided.free_strings import has_free_strings

VOCAB_SIZE = 49152
MANY = 10_000  # draws
# What brings a text of JSON on to its next place, which tokens at random hardly do.
MARKS = ['"', '",', ":", "}", "]"]


def as_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


WORDS = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 2}
FREE: dict[str, Any] = {
    "lengths": an_object(
        a={"type": "string", "minLength": 30}, b={"type": "string", "maxLength": 9}
    ),
    "lists": an_object(a=WORDS, b={"type": "array", "items": WORDS, "minItems": 1}),
    "patterns": an_object(
        a={"type": "string", "pattern": "^[a-z]{3,20}-[0-9]{4}$"},
        b={"type": "string", "format": "date"},
    ),
    "choices": an_object(
        a={"enum": ["one", "one more", "two", 3, None]},
        b={"anyOf": [an_object(c={"type": "string"}), {"type": "string"}, {"type": "null"}]},
        d={"type": ["string", "number"]},
    ),
    "any": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
}
BOUND: dict[str, Any] = {
    "kinds": {
        "anyOf": [
            an_object(kind={"const": "a"}),
            an_object(kind={"const": "ab"}, more={"type": "string", "minLength": 20}),
            an_object(kind={"type": "string", "pattern": "^b"}, list=WORDS),
        ]
    },
    "lists": {"enum": [["x", 1], ["xy", 2, 3]]},
    "one of a name": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "if": {"if": {"properties": {"a": {"const": "b"}}}, "then": {"required": ["c"]}},
}


class Texts:
    """A model's tokens as guides see them."""

    def __init__(self, pipe: Pipeline) -> None:
        self.compile = pipe.runtime.guides.compile
        self._texts = token_texts(pipe.runtime.tokenizer, VOCAB_SIZE)
        self._eos = frozenset(pipe.runtime.tokenizer.eos_token_ids)

    def allowed(self, guide: Any) -> list[int]:
        """Tokens that do not end the text."""
        return [token for token in guide.allowed_tokens(VOCAB_SIZE) if token not in self._eos]

    def draw(self, guide: Any, rng: random.Random) -> int | None:
        tokens = self.allowed(guide)
        mark = rng.choice(MARKS).encode()
        marked = [token for token in tokens if self._texts[token].startswith(mark)]
        return rng.choice(marked if marked and rng.random() < 0.5 else tokens) if tokens else None

    def token(self, text: str) -> int:
        return self._texts.index(text.encode())

    def text(self, tokens: list[int]) -> str:
        return b"".join(self._texts[token] for token in tokens).decode()

    def way_to_end(self, guide: Any) -> list[int]:
        """The tokens to which a copy of the guide is brought by a budget that is spent."""
        closing = guide.clone()
        tokens = self.allowed(closing)
        if not tokens:
            return []
        assert not closing.accept(tokens[0], 0)
        way: list[int] = []
        while tokens := self.allowed(closing):
            assert len(tokens) == 1
            assert closing.accept(tokens[0], MANY)
            way += tokens
        assert len(way) + 1 == guide.draws_to_end
        return way


@pytest.fixture(scope="module")
def texts(smollm2: Pipeline) -> Texts:
    return Texts(smollm2)


@pytest.mark.parametrize("name", FREE | {"kinds": ()})
def test_the_known_way_leads_to_the_end_from_everywhere(texts: Texts, name: str) -> None:
    schema = FREE.get(name) or BOUND[name]
    start = texts.compile(as_schema(schema))
    for seed in range(4):
        rng = random.Random(seed)
        guide, tokens = start.clone(), []
        for _ in range(30):
            token = texts.draw(guide, rng)
            if token is None:
                break
            assert guide.accept(token, MANY)
            tokens.append(token)
            if rng.random() < 0.5:
                answer = texts.text(tokens + texts.way_to_end(guide))
                jsonschema.validate(json.loads(answer), schema)


@pytest.mark.parametrize("name", FREE)
def test_what_a_guide_begins_with_changes_no_mask(texts: Texts, name: str) -> None:
    """It has computed masks along the shortest text; the same schema within another grammar has
    not.
    """
    text = grammar_of(as_schema(FREE[name])).text
    warm = texts.compile(as_schema(FREE[name])).clone()
    cold = texts.compile({"type": "grammar", "grammar": f"start: %json {text}"}).clone()
    rng = random.Random(1)
    for _ in range(30):
        assert warm.allowed_tokens(VOCAB_SIZE) == cold.allowed_tokens(VOCAB_SIZE)
        token = texts.draw(warm, rng)
        if token is None:
            break
        assert warm.accept(token, MANY)
        assert cold.accept(token, MANY)


def test_what_was_drawn_of_a_string_need_not_be_filled_in(texts: Texts) -> None:
    guide = texts.compile(as_schema({"type": "string", "minLength": 40})).clone()
    assert guide.accept(texts.token('"'), MANY)
    known = guide.draws_to_end
    for _ in range(4):
        assert guide.accept(texts.token(" something"), MANY)
    assert guide.draws_to_end == 2 < known  # a quotation mark, and the end


def test_schemas_whose_strings_decide_what_follows_are_known() -> None:
    for schema in FREE.values():
        assert has_free_strings(schema)
        assert has_free_strings({"$defs": {"a": schema}, "items": [schema]})
    for schema in BOUND.values():
        assert not has_free_strings(schema)
        assert not has_free_strings(an_object(a={"type": "array", "items": schema}))
    named = {name: {"type": "string"} for name in ("anyOf", "enum", "const", "type")}
    assert has_free_strings(an_object(**named))
    assert has_free_strings(True)


def test_free_strings_are_those_of_a_schema(texts: Texts) -> None:
    from manymind import _turbomind

    vocabulary = _turbomind.GuideVocabulary(library_path(), [b"a", b""], [1])
    with pytest.raises(InvalidParameterError, match=r"free_strings.*json_schema, found lark"):
        _turbomind.GrammarGuide(vocabulary, "lark", 'start: "a"', [], [], True)
    assert not grammar_of({"type": "regex", "regex": "a"}).free_strings
    assert grammar_of({"type": "json_object"}).free_strings

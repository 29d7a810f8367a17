# SPDX-License-Identifier: Apache-2.0
"""Structured output: the text is what was asked for, whatever else is asked for beside it.

References: ``json``, the ``jsonschema`` package and ``re``.
"""

from __future__ import annotations

import itertools
import json
import re
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest

from manymind import EngineConfig, GenerationConfig, Pipeline, Response, pipeline
from manymind.errors import InvalidParameterError
from manymind.guided import GuideCompiler
from manymind.guided.compiler import MAX_CACHED_GRAMMARS, MAX_IDLE_SECONDS
from manymind.parsers import (
    OutputFormat,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    joined,
)

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "minLength": 3},
                "since": {"type": "string", "format": "date"},
                "kind": {"enum": ["home", "work"]},
            },
            "required": ["street", "since"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "address"],
    "additionalProperties": False,
}
QUESTION = "Describe a person."


def as_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def ask(pipe: Pipeline, response_format: dict[str, Any], **fields: Any) -> Response:
    settings = {"max_new_tokens": 100, "do_sample": True, "temperature": 1.0, "random_seed": 1}
    config = GenerationConfig(response_format=response_format, **{**settings, **fields})
    answer = pipe(QUESTION, config)
    assert isinstance(answer, Response)
    return answer


def check_person(answer: Response) -> None:
    jsonschema.validate(json.loads(answer.text), PERSON)
    assert answer.finish_reason == "stop"


def shortest(pipe: Pipeline, response_format: dict[str, Any]) -> int:
    return pipe.runtime.guides.compile(response_format).draws_to_end


def test_every_budget_gives_a_whole_text(smollm2: Pipeline) -> None:
    least = shortest(smollm2, as_schema(PERSON))
    budgets = range(least, least + 40, 3)
    configs = [
        GenerationConfig(
            response_format=as_schema(PERSON),
            max_new_tokens=budget,
            do_sample=True,
            temperature=1.5,
            random_seed=budget,
        )
        for budget in budgets
    ]
    answers = smollm2([QUESTION] * len(configs), configs)
    for answer, budget in zip(answers, budgets, strict=True):
        check_person(answer)
        assert answer.generate_token_len < budget
    with pytest.raises(InvalidParameterError, match=f"max_new_tokens: expected at least {least}"):
        ask(smollm2, as_schema(PERSON), max_new_tokens=least - 1)


def test_a_text_that_ends_by_itself_is_not_cut(smollm2: Pipeline) -> None:
    answer = ask(smollm2, as_schema(PERSON), max_new_tokens=400)
    again = ask(smollm2, as_schema(PERSON), max_new_tokens=answer.generate_token_len + 1)
    assert again.text == answer.text


def test_streaming_n_logprobs_and_neighbours_change_nothing(smollm2: Pipeline) -> None:
    alone = ask(smollm2, as_schema(PERSON), random_seed=7)
    check_person(alone)
    wide = {"do_sample": True, "temperature": 1.0, "random_seed": 7, "max_new_tokens": 100}
    config = GenerationConfig(response_format=as_schema(PERSON), **wide)
    pieces = list(smollm2.stream_infer(QUESTION, config))
    assert "".join(piece.text for piece in pieces) == alone.text
    rich = GenerationConfig(
        response_format=as_schema(PERSON), n=3, logprobs=2, output_logits="generation", **wide
    )
    free = GenerationConfig(max_new_tokens=40, ignore_eos=True)
    mixed = smollm2([QUESTION, QUESTION], [rich, free])
    assert mixed[0][0].text == alone.text
    for answer in mixed[0]:
        check_person(answer)
        assert len(answer.logprobs) == len(answer.token_ids)
        assert answer.logits.shape[0] == len(answer.token_ids)
        assert [next(iter(row)) for row in answer.logprobs] == answer.token_ids
    assert mixed[1].text == smollm2(QUESTION, free).text


def test_preemption_and_prefix_hits_change_nothing(smollm2: Pipeline, smollm2_path: str) -> None:
    seeds = range(6)
    expected = [ask(smollm2, as_schema(PERSON), random_seed=seed).text for seed in seeds]
    with pipeline(smollm2_path, EngineConfig(session_len=256, num_kv_blocks=10)) as small:
        config = {"max_new_tokens": 100, "do_sample": True, "temperature": 1.0}
        answers = small(
            [QUESTION] * len(expected),
            [
                GenerationConfig(response_format=as_schema(PERSON), random_seed=seed, **config)
                for seed in seeds
            ],
        )
        assert [answer.text for answer in answers] == expected
        assert small.stats()["preemptions"] > 0


def test_a_stop_string_still_ends_the_text(smollm2: Pipeline) -> None:
    whole = ask(smollm2, as_schema(PERSON))
    answer = ask(smollm2, as_schema(PERSON), stop_words=['"age"'])
    assert answer.text == whole.text[: whole.text.index('"age"')]


@pytest.mark.parametrize(
    "pattern", [r"\d{3}-[a-z]{2,5}", r"(yes|no), (because|although) [A-Z]\w+\.", r"[^\s/]{10,20}"]
)
def test_regex(smollm2: Pipeline, pattern: str) -> None:
    for field in ("regex", "regex_schema"):
        for seed in range(4):
            answer = ask(
                smollm2, {"type": field, field: pattern}, random_seed=seed, max_new_tokens=24
            )
            assert re.fullmatch(pattern, answer.text, re.ASCII), answer.text


def test_choice(smollm2: Pipeline) -> None:
    choices = ["yes", "no", 'a "quoted"\nline', "日本"]
    answers = {
        ask(smollm2, {"type": "choice", "choice": choices}, random_seed=seed, temperature=5.0).text
        for seed in range(16)
    }
    assert answers <= set(choices)
    assert len(answers) > 1


def test_json_object_and_text(smollm2: Pipeline) -> None:
    for seed in range(4):
        answer = ask(smollm2, {"type": "json_object"}, random_seed=seed, max_new_tokens=40)
        assert isinstance(json.loads(answer.text), dict)
    free = ask(smollm2, {"type": "text"})
    assert free.text == smollm2(QUESTION, GenerationConfig(**_sampled())).text


def _sampled() -> dict[str, Any]:
    return {"max_new_tokens": 100, "do_sample": True, "temperature": 1.0, "random_seed": 1}


GBNF = 'root ::= item+ "."\nitem ::= "<" [a-c]+ ">" | "(" item ")"\n'
LARK = 'start: item+ "."\nitem: "<" /[a-c]+/ ">" | "(" item ")"\n'


def test_a_list_may_end_where_a_token_goes_on(smollm2: Pipeline) -> None:
    """The vocabulary has ");", and no token but its beginning may stand there: it looks forced."""
    assert len(smollm2.runtime.tokenizer.encode(");")) == 1
    grammar = 'start: item (";" item)*\nitem: "f(x)"\n'
    text = ask(smollm2, {"type": "grammar", "grammar": grammar}, max_new_tokens=12).text
    assert re.fullmatch(r"f\(x\)(;f\(x\))*", text)


@pytest.mark.parametrize("grammar", [GBNF, LARK], ids=["gbnf", "lark"])
def test_grammar(smollm2: Pipeline, grammar: str) -> None:
    for seed in range(4):
        answer = ask(
            smollm2,
            {"type": "grammar", "grammar": grammar},
            random_seed=seed,
            max_new_tokens=30,
            temperature=3.0,
        )
        text = answer.text
        while "(" in text:  # innermost first
            shorter = re.sub(r"\((<[a-c]+>)\)", r"\1", text)
            assert shorter != text, answer.text
            text = shorter
        assert re.fullmatch(r"(<[a-c]+>)+\.", text), answer.text


def tag(**more: Any) -> dict[str, Any]:
    arguments = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    arguments["additionalProperties"] = False  # type: ignore[assignment]
    structures = [
        {"begin": f"<function={name}>", "schema": arguments, "end": "</function>"}
        for name in ("add", "remove")
    ]
    return {
        "type": "structural_tag",
        "structures": structures,
        "triggers": ["<function="],
        **more,
    }


def test_structural_tag(smollm2: Pipeline) -> None:
    call = re.compile(r"<function=(?:add|remove)>(.*?)</function>", re.S)
    for seed in range(4):
        text = ask(
            smollm2, tag(at_least_one=True), random_seed=seed, max_new_tokens=60, temperature=1.5
        ).text
        assert text.startswith("<function=")
        for arguments in call.findall(text):
            assert isinstance(json.loads(arguments)["n"], int)
        assert "<function=" not in call.sub("", text)
    guide = smollm2.runtime.guides.compile(tag()).clone()
    for token in smollm2.runtime.tokenizer.encode("Look: <function="):
        assert guide.accept(token, 100)
    allowed = guide.allowed_tokens(smollm2.runtime.engine.vocab_size)
    assert {smollm2.runtime.tokenizer.decode([token])[0] for token in allowed} == {"a", "r"}


FORMS = {
    "qwen3_coder": {
        "begin": "<tool_call>\n<function=get_weather>\n",
        "end": "</function>\n</tool_call>",
        "parameter_begin": "<parameter={name}>\n",
        "parameter_end": "</parameter>\n",
    },
    "glm": {
        "begin": "<tool_call>get_weather\n",
        "end": "</tool_call>",
        "parameter_begin": "<arg_key>{name}</arg_key>\n<arg_value>",
        "parameter_end": "</arg_value>\n",
    },
    "pythonic": {
        "begin": "[get_weather(",
        "end": ")]",
        "parameter_begin": "{name}=",
        "parameter_separator": ", ",
    },
}
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where"},
        "unit": {"enum": ["celsius", "kelvin"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "hours": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    },
    "required": ["city", "unit", "days"],
}


def form_tag(name: str, schema: Any) -> dict[str, Any]:
    structures = [{**FORMS[name], "schema": schema}]
    triggers = ["[" if name == "pythonic" else "<tool_call>"]
    tag = {"type": "structural_tag", "structures": structures, "triggers": triggers}
    return {**tag, "at_least_one": True}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_tags(smollm2: Pipeline, name: str) -> None:
    """What the parser of the format makes of the text fits the schema, however it was drawn."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
    config = GenerationConfig(
        response_format=form_tag(name, WEATHER),
        do_sample=True,
        temperature=1.0,
        random_seed=5,
        n=8,
        max_new_tokens=120,
    )
    answers = smollm2(QUESTION, config)
    assert isinstance(answers, list)
    for answer in answers:
        parser = OutputFormat(name, None).parser(tools)
        events = joined(parser.push(answer.text) + parser.finish())
        assert events[0] == ToolCallStart(0, "get_weather"), answer.text
        assert isinstance(events[1], ToolCallDelta)
        assert events[2] == ToolCallEnd(0, True)
        jsonschema.validate(json.loads(events[1].arguments), WEATHER)


def test_a_separator_stands_between_arguments_only(smollm2: Pipeline) -> None:
    """Whichever of those that may be left out are there."""
    properties = {name: {"const": 1} for name in "abcd"}

    def takes(required: str, text: str) -> bool:
        schema = {"type": "object", "properties": properties, "required": list(required)}
        form = {**form_tag("pythonic", schema), "stop_after_first": True}
        guide = smollm2.runtime.guides.compile(form).clone()
        ids = smollm2.runtime.tokenizer.encode(f"[get_weather({text})]")
        try:
            return all(guide.accept(token, 1000) for token in ids)
        except InvalidParameterError:  # of a token that the grammar does not allow
            return False

    for required in ("", "b", "ad", "abcd"):
        for count in range(5):
            for names in itertools.combinations("abcd", count):
                text = ", ".join(f"{name}=1" for name in names)
                assert takes(required, text) == (set(required) <= set(names)), (required, text)
    assert not takes("", "a=1, ")
    assert not takes("", ", a=1")
    assert not takes("", "b=1, a=1")


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "x"}}}, r"properties\.a\.pattern"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"type": "array"}, "type"),
        ({"properties": {}, "required": ["a"]}, "required"),
        ({"required": 5}, "required: expected a list of str, found 5"),
        ({"required": [{}]}, r"required: expected a list of str, found \[\{\}\]"),
        ({"properties": {"a": {"enum": 5}}}, r"a\.enum: expected a list .*, found 5"),
        ({"properties": {"a": {"enum": "abc"}}}, r"a\.enum: expected a list .*, found 'abc'"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
    ],
)
def test_what_a_form_cannot_keep_is_named(smollm2: Pipeline, schema: Any, keyword: str) -> None:
    with pytest.raises(InvalidParameterError, match=rf"response_format.*{keyword}"):
        ask(smollm2, form_tag("glm", schema))


REFUSED = [
    ({"type": "object", "not": {"required": ["a"]}}, "not"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"properties": {"a": {"if": {}, "then": {}}}}, "if"),
    ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
    ({"$ref": "https://example.com/other.json"}, r"\$ref"),
    ({"$ref": "#/$defs/none"}, r"\$ref: "),
    ({"$schema": "http://json-schema.org/schema#"}, r"\$schema"),
    ({"type": "object", "minProperties": 2}, "minProperties"),
    ({"x-guidance": {"lenient": True}}, "x-guidance"),
    ({"type": "unknown"}, "type"),
    ({"oneOf": [{"type": "object"}, {"properties": {"a": {}}}]}, "oneOf"),
    (False, "not"),
    # Where the grammar's library names no keyword, it is found by trial.
    ({"type": "array", "items": {"enum": [1, 2]}, "minItems": 10**9}, "minItems: "),
    ({"type": "string", "minLength": 10**9}, "minLength: "),
    ({"type": "string", "pattern": "a" * 9000}, "pattern: expected at most 8192"),
]


@pytest.mark.parametrize(("schema", "keyword"), REFUSED, ids=[word for _, word in REFUSED])
def test_a_schema_that_cannot_be_kept_is_refused_by_keyword(
    smollm2: Pipeline, schema: Any, keyword: str
) -> None:
    with pytest.raises(InvalidParameterError, match=rf"response_format.*{keyword}"):
        ask(smollm2, as_schema(schema))


def test_control_tokens_of_a_tag_are_drawn_as_such(smollm2: Pipeline) -> None:
    """As Mistral's [TOOL_CALLS] is; their names spelt out in letters would mean nothing."""
    tokenizer = smollm2.runtime.tokenizer
    begin, end = "<repo_name>", "<file_sep>"
    form = {
        "type": "structural_tag",
        "structures": [{"begin": f"{begin}f[", "schema": PERSON, "end": f"]{end}"}],
        "triggers": [begin],
        "at_least_one": True,
        "stop_after_first": True,
    }
    for room in (0, 60):
        least = smollm2.runtime.guides.compile(form).draws_to_end
        answer = ask(smollm2, form, max_new_tokens=least + room, skip_special_tokens=False)
        assert answer.finish_reason == "stop"
        assert answer.token_ids[0] == tokenizer.token_to_id(begin)
        assert answer.token_ids[-1] == tokenizer.token_to_id(end)
        jsonschema.validate(json.loads(answer.text[len(f"{begin}f[") : -len(f"]{end}")]), PERSON)


@pytest.mark.parametrize("once", [False, True])
def test_free_text_may_hold_the_control_tokens_that_are_named(
    smollm2: Pipeline, once: bool
) -> None:
    form = {
        "type": "structural_tag",
        "structures": [{"begin": "<f>", "schema": {"const": 1}, "end": "</f>"}],
        "triggers": ["<f>"],
        "text_tokens": ["<repo_name>", "<file_sep>", "no token"],
        "stop_after_first": once,
    }

    def takes(text: str, **more: Any) -> bool:
        guide = smollm2.runtime.guides.compile({**form, **more}).clone()
        ids = smollm2.runtime.tokenizer.encode(text, parse_special=True)
        try:
            return all(guide.accept(token, 1000) for token in ids)
        except InvalidParameterError:  # of a token that the grammar does not allow
            return False

    assert takes("a<repo_name>b<file_sep><repo_name>c no token <f>1</f>")
    assert takes("a<repo_name>")
    assert not takes("a<repo_name>b<f>2")
    assert not takes("a<filename>")
    assert not takes("a<repo_name>", text_tokens=[])


def test_a_draft_is_known_however_it_is_spelt(smollm2: Pipeline) -> None:
    """Draft 7 has tuples as lists of ``items``, draft 2020-12 has not."""
    for draft in (
        "https://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-07/schema#",
    ):
        schema = {"$schema": draft, "type": "array", "items": [{"const": 1}], "minItems": 1}
        assert json.loads(ask(smollm2, as_schema(schema)).text)[0] == 1


def test_a_schema_without_a_finite_instance_is_refused(smollm2: Pipeline) -> None:
    endless = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}},
                "required": ["next"],
            }
        },
    }
    with pytest.raises(InvalidParameterError, match="expected a grammar with a text"):
        ask(smollm2, as_schema(endless))
    endless["$defs"]["node"]["properties"]["next"] = {  # type: ignore[index]
        "anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]
    }
    answer = ask(smollm2, as_schema(endless), max_new_tokens=30)
    jsonschema.validate(json.loads(answer.text), endless)


MALFORMED = [
    ({"type": "xml"}, r"response_format\.type: expected one of"),
    ({"type": "regex"}, r"response_format\.regex: expected with type 'regex'"),
    ({"type": "regex", "regex": "(a"}, r"response_format\.regex: "),
    ({"type": "regex", "regex": "a" * 70_000}, r"1 to 8192"),
    ({"type": "choice", "choice": []}, r"response_format\.choice"),
    ({**tag(), "text_tokens": "<think>"}, r"response_format\.text_tokens: expected a list"),
    ({"type": "grammar", "grammar": "no grammar"}, r"response_format\.grammar: expected GBNF"),
    ({"type": "grammar", "grammar": "root ::= other"}, r"grammar: .*neither: Rule 'other'"),
    ({"type": "grammar", "grammar": 'root ::= "\\'}, r"response_format\.grammar: .*neither"),
    ({"type": "grammar", "grammar": 'root ::= "a"{\u00b2}'}, "neither: invalid literal"),
    ({"type": "json_object", "schema": {}}, r"response_format\.schema: this field"),
    ({"type": "json_schema", "json_schema": {"schema": 3}}, r"json_schema\.schema: expected"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "with a 'schema'"),
    (tag(triggers=["<tool"]), "expected to begin with one of the triggers"),
    ("json", "expected a mapping"),
]


@pytest.mark.parametrize(("response_format", "message"), MALFORMED)
def test_a_malformed_format_names_its_field(
    smollm2: Pipeline, response_format: Any, message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        ask(smollm2, response_format)


BESIDE = [
    {"ignore_eos": True},
    {"min_new_tokens": 3},
    {"bad_words": ["the"]},
    {"bad_token_ids": [5]},
    {"allowed_token_ids": [5]},
    {"logit_bias": {5: -float("inf")}},
]


@pytest.mark.parametrize("fields", BESIDE, ids=[next(iter(fields)) for fields in BESIDE])
def test_other_rules_on_tokens_are_refused(smollm2: Pipeline, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(fields))):
        ask(smollm2, {"type": "json_object"}, **fields)


def test_whitespace_is_bounded(smollm2: Pipeline) -> None:
    tokenizer = smollm2.runtime.tokenizer
    newline = tokenizer.encode("\n")
    config = GenerationConfig(
        response_format=as_schema({"type": "array", "items": {"type": "integer"}}),
        logit_bias=dict.fromkeys(newline, 100.0),
        max_new_tokens=40,
    )
    text = smollm2(QUESTION, config).text
    assert isinstance(json.loads(text), list)
    assert re.search(r"\n\s*\n", text) is None


def test_grammars_nobody_asks_for_are_dropped(
    smollm2: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("manymind.guided.compiler.time.monotonic", lambda: now)
    compiler = GuideCompiler(smollm2.runtime.tokenizer, smollm2.runtime.engine.vocab_size)
    first = compiler.compile(as_schema(PERSON))
    now += MAX_IDLE_SECONDS - 1
    assert compiler.compile(as_schema(PERSON)) is first
    now += MAX_IDLE_SECONDS + 1
    compiler.compile({"type": "choice", "choice": ["another"]})
    assert compiler.compile(as_schema(PERSON)) is not first


def test_compiled_grammars_are_kept_and_bounded(smollm2: Pipeline) -> None:
    compiler = GuideCompiler(smollm2.runtime.tokenizer, smollm2.runtime.engine.vocab_size)
    first = compiler.compile(as_schema(PERSON))
    assert compiler.compile(as_schema(dict(PERSON))) is first
    for i in range(MAX_CACHED_GRAMMARS):
        compiler.compile({"type": "choice", "choice": [f"word {i}"]})
    assert compiler.compile(as_schema(PERSON)) is not first


def test_a_kept_grammar_is_found_by_what_was_asked(
    smollm2: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form is not made a grammar again; other forms, or orders of properties, are others."""
    compiler = GuideCompiler(smollm2.runtime.tokenizer, smollm2.runtime.engine.vocab_size)
    form = {"type": "grammar", "grammar": GBNF}
    schema = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}}
    turned = {**schema, "properties": dict(reversed(schema["properties"].items()))}  # type: ignore[attr-defined]
    made = [compiler.compile(asked) for asked in (form, as_schema(schema), as_schema(turned))]
    assert len(set(map(id, made))) == 3
    assert not compiler.keeps({"type": "grammar", "grammar": LARK})
    assert not compiler.keeps({"type": "choice", "choice": {"no JSON"}})
    monkeypatch.setattr("manymind.guided.compiler.grammar_of", None)
    assert compiler.keeps(form)
    assert compiler.compile(dict(form)) is made[0]
    assert compiler.compile(MappingProxyType(as_schema(MappingProxyType(schema)))) is made[1]

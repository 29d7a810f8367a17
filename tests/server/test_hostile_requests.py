# SPDX-License-Identifier: Apache-2.0
"""Requests that are made to cost much: schemas, expressions, grammars and counts.

The chains used to end the process: the grammar's library compiles them by recursion.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import QUESTION, Held, RunningServer

from manymind.guided import GuideCompiler
from manymind.guided.formats import grammar_of
from manymind.guided.json_schema import MAX_SCHEMA_CHARS
from manymind.runtime import Runtime
from manymind.server.config import ServerConfig

CHAT: dict[str, Any] = {"model": "smollm2", "messages": QUESTION, "max_tokens": 60}
# Of the server's processor for one request, as what else the machine does is not in it: three times
# what the dearest takes, whose cost grows with the square of its length.
MOST_SECONDS = 30.0


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def exponential(depth: int) -> dict[str, Any]:
    """Definitions of which each names the one before twice."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, depth):
        reference = {"$ref": f"#/$defs/d{i - 1}"}
        definitions[f"d{i}"] = {"anyOf": [reference, {"type": "array", "items": reference}]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth - 1}"}


def chain(link: dict[str, Any], leaf: dict[str, Any]) -> dict[str, Any]:
    """Definitions of which each is a link to the next, as many as the limits let in."""
    count = MAX_SCHEMA_CHARS // (len(json.dumps({"d12345": link})) + 6)
    text = json.dumps(link)
    definitions = {f"d{i}": json.loads(text.replace("NEXT", f"d{i + 1}")) for i in range(count)}
    return {"$defs": {**definitions, f"d{count}": leaf}, "$ref": "#/$defs/d0"}


def rules(body: str, count: int) -> dict[str, Any]:
    """A chain of rules of a grammar; N in the body is the next one's number."""
    links = "".join(f"r{i}: {body.replace('N', str(i + 1))}\n" for i in range(count))
    return {"type": "grammar", "grammar": f'start: r0\n{links}r{count}: "x"'}


def as_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def as_regex(pattern: str) -> dict[str, Any]:
    return {"type": "regex", "regex": pattern}


NEXT = {"$ref": "#/$defs/NEXT"}
OBJECT = {"type": "object", "properties": {"a": NEXT}, "required": ["a"]}
HOSTILE: dict[str, dict[str, Any]] = {
    "deep": as_schema(nested(300)),
    "deep enough": as_schema(nested(100)),
    "doubling": as_schema(exponential(60)),
    "self": as_schema({"$ref": "#"}),
    "cycle": as_schema({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    "wide": as_schema({"enum": [f"value {i}" for i in range(20_000)]}),
    "many alternatives": as_schema({"anyOf": [{"const": i} for i in range(5000)]}),
    "long string": as_schema({"type": "string", "minLength": 10**9}),
    "many items": as_schema({"type": "array", "minItems": 10**9}),
    "many of two": as_schema({"type": "array", "items": nested(3), "minItems": 10_000}),
    "large number": as_schema({"type": "integer", "multipleOf": 3, "minimum": 10**15}),
    "no type": as_schema({"type": {"type": "type"}}),
    "pattern in pattern": as_schema({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}),
    "backtracking": as_regex("(a+)+(b+)*c(a|aa)+(a|a)*"),
    "counted": as_regex("(.{1,5000}){1,5000}"),
    "counted twice": as_regex("((a{0,900}){0,900}){0,900}"),
    "exact count": as_regex("[ab]*a[ab]{900}"),
    "unbalanced": as_regex("((((((((("),
    "long": as_regex("(a|b)?" * 8000),
    "left recursion": {"type": "grammar", "grammar": "start: start start | start"},
    "empty loop": {"type": "grammar", "grammar": 'start: a\na: b*\nb: a* | "x"?'},
    "ambiguous": {"type": "grammar", "grammar": 'start: e\ne: e e | "x" | e "x" e'},
    "chain of references": as_schema(chain(NEXT, {"type": "string"})),
    "chain of all": as_schema(chain({"allOf": [NEXT]}, {"type": "string"})),
    "chain of any": as_schema(chain({"anyOf": [NEXT, {"type": "null"}]}, {"type": "string"})),
    "chain of lists": as_schema(chain({"type": "array", "items": NEXT}, {"type": "string"})),
    "chain of objects": as_schema(chain(OBJECT, {"type": "string"})),
    "chain of rules": rules("rN", 18_000),
    "chain of rules with words": rules('"a" rN', 12_000),
    "doubling rules": rules("rN | rN rN", 9000),
    "chain of terminals": {
        "type": "grammar",
        "grammar": "start: R0\n"
        + "".join(f'R{i}: R{i + 1} | "b"\n' for i in range(13_000))
        + 'R13000: "x"',
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_cost_little(server: RunningServer, name: str) -> None:
    """An answer or a refusal, in time, and the server goes on."""
    begin = time.process_time()
    answer = server.post("/v1/chat/completions", {**CHAT, "response_format": HOSTILE[name]})
    assert time.process_time() - begin < MOST_SECONDS
    assert answer.status_code in (200, 400), answer.text[:500]
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] in ("invalid_value", "invalid_json")
    assert server.get("/health").status_code == 200


def test_the_loop_answers_while_a_grammar_is_compiled(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling is done beside the event loop."""
    monkeypatch.setattr(GuideCompiler, "compile", held := Held(GuideCompiler.compile))
    body = {**CHAT, "response_format": {"type": "choice", "choice": ["yes"]}}
    with held.by(lambda: server.post("/v1/chat/completions", body).status_code) as answered:
        assert server.get("/health").status_code == 200
    assert answered == [200]


def threads_of(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[str]]:
    """The function, and the names of the threads that have called it."""
    names: list[str] = []

    def noted(*arguments: Any) -> Any:
        names.append(threading.current_thread().name)
        return function(*arguments)

    return noted, names


@pytest.mark.parametrize("prompts", [1, 8])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_a_form_is_made_on_the_loop(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, prompts: int, stream: bool
) -> None:
    """Once for all prompts of a request; of a form that is known, nothing is made again."""
    convert, converted = threads_of(grammar_of)
    compile_, compiled = threads_of(GuideCompiler.compile)
    monkeypatch.setattr("manymind.guided.compiler.grammar_of", convert)
    monkeypatch.setattr(GuideCompiler, "compile", compile_)
    form = {"type": "choice", "choice": [f"{prompts} {stream}"]}
    body = {"model": "smollm2", "prompt": ["a"] * prompts, "stream": stream, "max_tokens": 20}
    for _ in range(2):
        answer = server.post("/v1/completions", {**body, "response_format": form})
        assert answer.status_code == 200, answer.text
    assert [name.partition("_")[0] for name in converted] == ["manymind-guide"]
    assert [name.partition("_")[0] for name in compiled] == ["manymind-guide", "manymind-text"]


@pytest.mark.parametrize("prompts", [1, 8])
def test_bad_words_are_tokenised_beside_the_loop(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, prompts: int
) -> None:
    encode, encoded = threads_of(Runtime._encode_word)
    monkeypatch.setattr(Runtime, "_encode_word", encode)
    body = {"model": "smollm2", "prompt": ["a"] * prompts, "max_tokens": 1}
    answer = server.post("/v1/completions", {**body, "bad_words": [" the", " a"]})
    assert answer.status_code == 200, answer.text
    assert [name.partition("_")[0] for name in encoded] == ["manymind-text"] * 4


def test_grammars_hold_up_nobodys_tokenising(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many that take long as there are threads for text."""
    begun, free = threading.Semaphore(0), threading.Event()
    compile_ = GuideCompiler.compile

    def slow(*arguments: Any) -> Any:
        begun.release()
        assert free.wait(20)
        return compile_(*arguments)

    def ask(word: str) -> int:
        form = {"type": "choice", "choice": [f"slow {word}"]}
        return server.post("/v1/chat/completions", {**CHAT, "response_format": form}).status_code

    monkeypatch.setattr(GuideCompiler, "compile", slow)
    workers = server.service.config.workers
    with ThreadPoolExecutor(workers) as clients:
        try:
            asked = clients.map(ask, map(str, range(workers)))
            assert all(begun.acquire(timeout=20) for _ in range(workers))
            plain = {"model": "smollm2", "prompt": "a", "max_tokens": 1}
            assert server.post("/v1/completions", plain, timeout=10).status_code == 200
        finally:
            free.set()
        assert list(asked) == [200] * workers


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/chat/completions", {"n": 10**9}, "n"),
        ("/v1/chat/completions", {"n": 129}, "n"),
        ("/v1/chat/completions", {"top_logprobs": 10**6, "logprobs": True}, "top_logprobs"),
        ("/v1/chat/completions", {"stop": ["x"] * 17}, "stop"),
        ("/v1/chat/completions", {"stop": "x" * 2000}, "stop"),
        ("/v1/chat/completions", {"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ("/v1/chat/completions", {"allowed_token_ids": [1] * 1025}, "allowed_token_ids"),
        ("/v1/chat/completions", {"bad_words": ["x"] * 257}, "bad_words"),
        ("/v1/chat/completions", {"messages": QUESTION * 8193}, "messages"),
        ("/v1/completions", {"prompt": ["x"] * 257, "messages": None}, "prompt"),
        ("/v1/completions", {"prompt": ["x"] * 200, "n": 2, "messages": None}, "n"),
        ("/v1/completions", {"prompt": [[5] * 5000], "messages": None}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_counts_are_bounded(
    server: RunningServer, path: str, change: dict[str, Any], param: str | None
) -> None:
    body = {name: value for name, value in {**CHAT, **change}.items() if value is not None}
    answer = server.post(path, body)
    assert answer.status_code == 400
    if param is not None:
        assert answer.json()["error"]["param"].startswith(param)


def test_listens_on_loopback_by_default() -> None:
    config = ServerConfig("smollm2")
    assert config.host == "127.0.0.1"
    assert config.hosts == {"127.0.0.1", "::1", "localhost"}
    assert config.allowed_origins == ()

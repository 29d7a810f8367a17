# SPDX-License-Identifier: Apache-2.0
"""Grammars to guides, kept for the next request that asks for the same."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from manymind.errors import EngineError, InvalidParameterError
from manymind.guided.culprit import culprit, names_keyword
from manymind.guided.formats import Grammar, grammar_of

if TYPE_CHECKING:
    from manymind import _turbomind

# Bounds of what is kept: a compiled grammar takes some ten times its text.
MAX_CACHED_GRAMMARS = 128
MAX_CACHED_CHARS = 4 << 20
MAX_IDLE_SECONDS = 1800.0  # since it was last asked for


class TokenBytes(Protocol):
    def token_bytes(self, token_id: int, skip_special: bool) -> bytes: ...


class Vocabulary(Protocol):
    """What guides need of a ``manymind.tokenizer.Tokenizer``."""

    @property
    def tokens(self) -> TokenBytes: ...
    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...
    @property
    def control_tokens(self) -> tuple[str, ...]: ...
    def id_to_token(self, token_id: int) -> str | None: ...
    def token_to_id(self, token: str) -> int | None: ...


class _Kept(NamedTuple):
    guide: _turbomind.TokenGuide
    chars: int  # of the grammar
    last_use: float


class GuideCompiler:
    """Makes the guides of one model. Thread-safe.

    Args:
        tokenizer: of the model.
        vocab_size: columns of its logits.
    """

    def __init__(self, tokenizer: Vocabulary, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._control_ids = _control_ids(tokenizer, vocab_size)
        self._vocabulary: _turbomind.GuideVocabulary | None = None
        # By what was asked for, as making a grammar of that takes time, too; least recently used
        # first.
        self._cache: OrderedDict[bytes, _Kept] = OrderedDict()
        self._cached_chars = 0
        self._vocabulary_lock = threading.Lock()  # guards _vocabulary
        self._cache_lock = threading.Lock()  # guards _cache and _cached_chars

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The model's control tokens that can stand within an answer."""
        return self._control_ids

    def compile(self, response_format: Mapping[str, Any]) -> _turbomind.TokenGuide:
        """The guide of a constrained response format, in its first state; requests clone it.

        Raises InvalidParameterError naming what in it is wrong or not supported, EngineError where
        llguidance is not installed.
        """
        key = _key(response_format)
        with self._cache_lock:
            known = self._cache.pop(key, None) if key else None
            if key and known:
                self._cache[key] = known._replace(last_use=time.monotonic())
                return known.guide
        grammar = grammar_of(response_format, self._control_ids)
        guide = self._compile_or_explain(grammar, response_format["type"])
        if key:
            self._keep(key, _Kept(guide, len(grammar.text), time.monotonic()))
        return guide

    def keeps(self, response_format: Mapping[str, Any]) -> bool:
        """Whether ``compile`` would find the guide made already."""
        key = _key(response_format)
        with self._cache_lock:
            return key in self._cache

    def _compile_or_explain(self, grammar: Grammar, name: str) -> _turbomind.TokenGuide:
        try:
            return self._compile(grammar)
        except InvalidParameterError as error:
            message = _say(str(error).removeprefix("response_format: "))
            if name == "json_schema" and not names_keyword(message):
                message = f"{culprit(grammar.text, self._compiles)}: {message}"
            raise InvalidParameterError(f"response_format.{name}: {message}") from error

    def _compile(self, grammar: Grammar) -> _turbomind.TokenGuide:
        from manymind import _turbomind

        vocabulary = self._load_vocabulary()
        return _turbomind.GrammarGuide(
            vocabulary,
            grammar.kind,
            grammar.text,
            grammar.hints,
            grammar.exits,
            grammar.free_strings,
        )

    def _compiles(self, schema: str) -> bool:
        try:
            self._compile(Grammar("json_schema", schema))
        except InvalidParameterError:
            return False
        return True

    def _keep(self, key: bytes, new: _Kept) -> None:
        with self._cache_lock:
            if key not in self._cache:
                self._cached_chars += new.chars
            self._cache[key] = new
            while len(self._cache) > 1 and self._is_over(new.last_use):
                _, dropped = self._cache.popitem(last=False)
                self._cached_chars -= dropped.chars

    def _is_over(self, now: float) -> bool:
        oldest = next(iter(self._cache.values()))
        return (
            len(self._cache) > MAX_CACHED_GRAMMARS
            or self._cached_chars > MAX_CACHED_CHARS
            or now - oldest.last_use > MAX_IDLE_SECONDS
        )

    def _load_vocabulary(self) -> _turbomind.GuideVocabulary:
        from manymind import _turbomind

        with self._vocabulary_lock:
            if self._vocabulary is None:
                tokens = token_texts(self._tokenizer, self._vocab_size)
                eos = list(self._tokenizer.eos_token_ids)
                self._vocabulary = _turbomind.GuideVocabulary(library_path(), tokens, eos)
            return self._vocabulary


def _key(response_format: Mapping[str, Any]) -> bytes | None:
    """The same for equal formats, of the same length whatever they hold; None for one that is no
    JSON, which has no grammar. The order of keys counts: properties come in theirs.
    """
    try:
        text = json.dumps(response_format, ensure_ascii=False, default=_as_object)
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _as_object(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"expected JSON, found {type(value).__name__}")


def _control_ids(tokenizer: Vocabulary, vocab_size: int) -> dict[str, int]:
    """Control tokens that can stand within an answer."""
    found = {text: tokenizer.token_to_id(text) for text in tokenizer.control_tokens}
    return {
        text: token_id
        for text, token_id in found.items()
        if token_id is not None
        and token_id < vocab_size
        and token_id not in tokenizer.eos_token_ids
    }


def token_texts(tokenizer: Vocabulary, vocab_size: int) -> list[bytes]:
    """The bytes of each token as llguidance wants them: control tokens begin with byte 0xFF, ids
    that the tokenizer does not know are empty.
    """
    control = frozenset(tokenizer.control_tokens)
    texts = []
    for token_id in range(vocab_size):
        text = tokenizer.tokens.token_bytes(token_id, False)
        is_control = tokenizer.id_to_token(token_id) in control
        texts.append(b"\xff" + text if is_control else text)
    return texts


def library_path() -> str:
    """The shared library in llguidance's package. Raises EngineError without it."""
    spec = importlib.util.find_spec("llguidance")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("_lib*")):
            if path.suffix in (".so", ".pyd", ".dylib"):
                return str(path)
    raise EngineError(
        "response_format: expected the package llguidance to be installed, found none; "
        "pip install llguidance"
    )


# What llguidance calls things, and the keyword of JSON Schema that it means.
_KEYWORDS = (
    ("regex parse error", "pattern"),
    ("Resource '", "$ref"),
    ("Pointer '", "$ref"),
    ("Unimplemented keys", "unsupported keywords"),
    ("Invalid type", "type"),
    ("NoExtensionBias", "a rule or $ref that means nothing but itself"),
    ("recursion limit exceeded", "too many levels of properties or other schemas"),
)


def _say(message: str) -> str:
    """llguidance's words in one line, with the keyword where they lack it."""
    text = " ".join(message.split())
    for sign, keyword in _KEYWORDS:
        if sign in text and keyword not in text:
            return f"{keyword}: {text}"
    return text

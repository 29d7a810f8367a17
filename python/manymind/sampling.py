# SPDX-License-Identifier: Apache-2.0
"""GenerationConfig -> the engine's SamplingParams."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from manymind.config import GenerationConfig
from manymind.errors import InvalidParameterError
from manymind.guided import GuideCompiler, is_constrained
from manymind.validation import require

if TYPE_CHECKING:
    from manymind import _turbomind

Item = TypeVar("Item")


class TextRules(NamedTuple):
    """What a configuration asks of the text, in the engine's words."""

    bad_words: list[list[int]]  # token ids of each
    guide: _turbomind.TokenGuide | None


def text_rules(
    config: GenerationConfig, encode_word: Callable[[str], list[int]], guides: GuideCompiler
) -> TextRules:
    """The rules of a configuration whose settings are valid; requests can share them.

    encode_word turns a bad word into its token ids. A response format that ``guides`` has not
    compiled before takes from milliseconds to seconds here. Raises InvalidParameterError.
    """
    words = _bad_words(config, encode_word)
    if config.response_format is None or not is_constrained(config.response_format):
        return TextRules(words, None)
    require(not words, "bad_words", "none beside a response_format", config.bad_words)
    return TextRules(words, guides.compile(config.response_format))


def sampling_params(
    config: GenerationConfig, eos_token_ids: Sequence[int], rules: TextRules
) -> _turbomind.SamplingParams:
    """The engine's parameters of one request, with a seed of its own unless one is given."""
    from manymind import _turbomind

    params = _turbomind.SamplingParams()
    params.n = config.n
    params.max_new_tokens = config.max_new_tokens
    params.min_new_tokens = config.min_new_tokens or 0
    _set_randomness(params, config)
    params.repetition_penalty = config.repetition_penalty
    params.presence_penalty = config.presence_penalty
    params.frequency_penalty = config.frequency_penalty
    params.logit_bias = dict(config.logit_bias or {})
    single = [ids[0] for ids in rules.bad_words if len(ids) == 1]
    params.bad_token_ids = [*listed(config.bad_token_ids), *single]
    params.bad_token_sequences = [ids for ids in rules.bad_words if len(ids) > 1]
    params.allowed_token_ids = listed(config.allowed_token_ids)
    params.stop_token_ids = listed(config.stop_token_ids)
    params.eos_token_ids = list(eos_token_ids)
    params.ignore_eos = config.ignore_eos
    params.logprobs = -1 if config.logprobs is None else config.logprobs
    params.prompt_logprobs = -1 if config.prompt_logprobs is None else config.prompt_logprobs
    params.output_logits = config.output_logits or "none"
    params.output_last_hidden_state = config.output_last_hidden_state or "none"
    params.priority = config.priority
    params.timeout = config.timeout or 0.0
    params.tenant = config.tenant
    params.tenant_weight = config.tenant_weight
    params.cache_salt = config.cache_salt
    params.guide = rules.guide
    return params


def listed(values: Collection[Item] | None) -> list[Item]:
    """The values as a list: a numpy array has no truth value."""
    return [] if values is None else list(values)


def _set_randomness(params: _turbomind.SamplingParams, config: GenerationConfig) -> None:
    params.temperature = config.temperature if config.do_sample else 0.0
    params.top_k = config.top_k
    params.top_p = config.top_p
    params.min_p = config.min_p
    seed = config.random_seed
    params.seed = secrets.randbits(63) if seed is None else seed


def _bad_words(
    config: GenerationConfig, encode_word: Callable[[str], list[int]]
) -> list[list[int]]:
    """Of each word its tokens with a space before it and without: vocabularies write a word within
    a text otherwise than at its beginning.
    """
    words: list[list[int]] = []
    for word in listed(config.bad_words):
        bare = word.lstrip(" ")
        forms = [encode_word(form) for form in ([bare, f" {bare}"] if bare else [word])]
        if not all(forms):
            raise InvalidParameterError(f"bad_words: expected words with a token, found {word!r}")
        # Where one ends with another, the latter's rule is the former's, too.
        words += [
            ids
            for ids in forms
            if not any(len(end) < len(ids) and ids[-len(end) :] == end for end in forms)
        ]
    return words

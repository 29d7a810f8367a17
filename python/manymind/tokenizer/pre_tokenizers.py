# SPDX-License-Identifier: Apache-2.0
"""How the BPE vocabularies of GGUF files split text into words (``tokenizer.ggml.pre``).

GGUF names the rule only; the rules are those of the models' own tokenizer.json files.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from manymind.errors import TokenizerError

# %s: how digits are grouped.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _WORDS % r"\p{N}{1,3}"
_QWEN2 = _WORDS % r"\p{N}"


@dataclass(frozen=True)
class PreTokenization:
    """What surrounds the BPE model.

    ``whole_words``: a word that is in the vocabulary is one token even if no merges lead to it.
    ``adds_bos``: whether a text begins with BOS where the file does not say.
    """

    pre_tokenizer: pre_tokenizers.PreTokenizer
    normalizer: normalizers.Normalizer | None = None
    whole_words: bool = False
    adds_bos: bool = False


def pre_tokenization(name: str) -> PreTokenization:
    """The rules of ``tokenizer.ggml.pre`` = ``name``. Raises TokenizerError if it is not known."""
    make = _TABLE.get(name)
    if make is None:
        known = ", ".join(_TABLE)
        raise TokenizerError(f"tokenizer.ggml.pre: expected one of {known}, found {name!r}")
    return make()


def _gpt2() -> PreTokenization:
    return PreTokenization(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))


def _single_digits() -> PreTokenization:
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return PreTokenization(pre_tokenizers.Sequence([digits, words]))


def _llama3() -> PreTokenization:
    return PreTokenization(_split(_LLAMA3), whole_words=True, adds_bos=True)


def _dbrx() -> PreTokenization:
    """cl100k's words, as Llama 3's, but built by merges alone; Phi-4's files name it."""
    return PreTokenization(_split(_LLAMA3))


def _qwen2() -> PreTokenization:
    return PreTokenization(_split(_QWEN2), normalizer=normalizers.NFC())


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    characters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, characters])


_TABLE = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "refact": _single_digits,
    "command-r": _single_digits,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
    "dbrx": _dbrx,
    "qwen2": _qwen2,
    "deepseek-r1-qwen": _qwen2,
}

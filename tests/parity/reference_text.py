# SPDX-License-Identifier: Apache-2.0
"""Token ids and rendered chats by transformers and sentencepiece. Nothing here uses manymind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

Encode = Callable[[str], list[int]]

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "question": [{"role": "user", "content": 'What is 2 < 3 & "why"? ñ 日本'}],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!\n"},
        {"role": "user", "content": "  More?  "},
    ],
}


def golden_texts(corpus: str) -> list[str]:
    """The lines of ``corpus``, decomposed ones, white space of many lengths, and odd characters."""
    lines = corpus.split("\n")
    return [
        *lines,
        *(unicodedata.normalize("NFD", line) for line in lines if not line.isascii()),
        *(" " * count + "x" for count in (1, 2, 3, 4, 8, 15, 16, 30, 31, 32, 33, 62, 63)),
        *("a" + "\n" * count + "b" for count in (1, 2, 3, 4, 30, 31, 32, 33)),
        *("\t" * count + "y\r\n" * count for count in (1, 2, 3, 7)),
        "",
        " ",
        "\x00\x01\x7f\x80\xff\ufeff\ufffd\ue000\U0010ffff",
        "\n".join(lines[:12]),
    ]


@cache  # reading a vocabulary takes seconds
def smollm2_reference(path: Path) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer from its GGUF file by transformers.

    transformers ignores ``tokenizer.ggml.pre`` (smollm): the rule of the model's published
    tokenizer.json is put back.
    """
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def folder_reference(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer.json of a folder by transformers.

    Not by AutoTokenizer, which for some model types replaces the file's rules by its own.
    """
    return PreTrainedTokenizerFast.from_pretrained(path)


@cache
def sentencepiece_reference(path: Path) -> Encode:
    """SentencePiece on the vocabulary of a GGUF file, with control tokens parsed in front of it.

    It is what defines the ids. transformers gets these models' white-space tokens wrong from GGUF,
    whose scores for them are placeholders that its conversion to merges relies on.
    """
    fields = gguf.GGUFReader(path).fields

    def column(name: str) -> list[Any]:
        values: list[Any] = fields[f"tokenizer.ggml.{name}"].contents()
        return values

    model = sentencepiece_model_pb2.ModelProto()
    unknown = fields["tokenizer.ggml.unknown_token_id"].contents()
    control: dict[str, int] = {}
    rows = zip(column("tokens"), column("scores"), column("token_type"), strict=True)
    for token_id, (piece, score, kind) in enumerate(rows):
        entry = model.pieces.add()
        entry.piece = piece.replace(" ", "▁")
        entry.score = score
        entry.type = 2 if token_id == unknown else kind
        if kind == 3:
            control[piece] = token_id
    model.trainer_spec.model_type = 2  # BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    prefix = fields.get("tokenizer.ggml.add_space_prefix")
    model.normalizer_spec.add_dummy_prefix = prefix is None or bool(prefix.contents())
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    longest_first = sorted(control, key=len, reverse=True)
    pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in pattern.split(text):
            ids += [control[part]] if part in control else processor.encode(part)
        return ids

    return encode


def render_reference(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    """A conversation rendered by transformers. Raises what transformers raises."""
    rendered: str = render_jinja_template([messages], chat_template=template, **variables)[0][0]
    return rendered

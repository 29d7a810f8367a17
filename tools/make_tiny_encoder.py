# SPDX-License-Identifier: Apache-2.0
"""Makes a tiny seeded random BERT, laid out as Sentence Transformers' folders are, for tests; part
of make_golden.py. The same seed gives the same files.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Other characters than these, of any script, are unknown.
ALPHABET = string.ascii_lowercase + string.digits + string.punctuation + "。東京日本"
ENDINGS = ("##ed", "##ing", "##ence", "##ly", "##er")
VOCAB_SIZE = 320
MAX_TEXT_LEN = 256  # less than there are positions, as in all-MiniLM-L6-v2

# config.json, as published ones write it.
_CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}
_POOLING = {
    "word_embedding_dimension": _CONFIG["hidden_size"],
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


def make_encoder(folder: Path, text: str) -> None:
    """Writes the checkpoint, whose words are the most frequent ones of ``text``."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    settings = {
        "config.json": _CONFIG,
        "1_Pooling/config.json": _POOLING,
        "sentence_bert_config.json": {"max_seq_length": MAX_TEXT_LEN, "do_lower_case": False},
        "modules.json": _modules(),
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": _CONFIG["max_position_embeddings"],
        },
    }
    for name, content in settings.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    _tokenizer(text).save(str(folder / "tokenizer.json"), pretty=False)
    tensors = {name: torch.from_numpy(values) for name, values in _weights(_CONFIG).items()}
    save_file(tensors, folder / "model.safetensors")


def _modules() -> list[dict[str, Any]]:
    folders = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (kind, path) in enumerate(folders.items())
    ]


def _tokenizer(text: str) -> Tokenizer:
    """Word pieces by BERT's rules, with a length to cut and pad to, which published ones keep."""
    normalizer = normalizers.BertNormalizer()
    splitter = pre_tokenizers.BertPreTokenizer()
    words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    vocabulary = {piece: index for index, piece in enumerate(_pieces(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    return tokenizer


def _pieces(words: list[str]) -> list[str]:
    """The alphabet at the start of a word and inside, some endings, and frequent words."""
    inside = [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    pieces = [*SPECIAL, *ALPHABET, *inside, *ENDINGS]
    counted = Counter(word for word in words if len(word) > 1).items()
    frequent = sorted(counted, key=lambda pair: (-pair[1], pair[0]))
    return pieces + [word for word, _ in frequent[: VOCAB_SIZE - len(pieces)]]


def _weights(config: Mapping[str, Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Hugging Face names to weights, scaled so that activations stay of order 1."""
    generator = np.random.default_rng(0)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    weights: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def normal(name: str, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> None:
        weights[name] = (mean + scale * generator.standard_normal(shape)).astype(np.float32)

    def linear(name: str, rows: int, cols: int, scale: float = 1.0) -> None:
        normal(f"{name}.weight", (rows, cols), scale / cols**0.5)
        normal(f"{name}.bias", (rows,), 0.1)

    def norm(name: str) -> None:
        normal(f"{name}.weight", (hidden,), 0.2, mean=1.0)
        normal(f"{name}.bias", (hidden,), 0.1)

    normal("embeddings.word_embeddings.weight", (config["vocab_size"], hidden), 1.0)
    positions = config["max_position_embeddings"]
    normal("embeddings.position_embeddings.weight", (positions, hidden), 0.5)
    normal("embeddings.token_type_embeddings.weight", (config["type_vocab_size"], hidden), 0.2)
    norm("embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        # Keys that queries tell apart: else all tokens of a text would take the same.
        for name, scale in (("query", 2.0), ("key", 2.0), ("value", 1.0)):
            linear(f"{layer}.attention.self.{name}", hidden, hidden, scale)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", hidden, hidden)  # published ones hold it; no sentence's vector uses it
    return weights

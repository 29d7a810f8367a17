# SPDX-License-Identifier: Apache-2.0
"""Makes tiny seeded random checkpoints of every model family, for tests.

    python tools/make_tiny_checkpoints.py FOLDER

Needs torch, safetensors, tokenizers, sentencepiece and gguf. The same seed gives the same files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 448
BOS, EOS, START, END = "<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|tool|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FloatArray = np.ndarray[Any, np.dtype[np.float32]]

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}

# config.json of each checkpoint, as published ones of its family write it, and the stored dtype.
HUGGINGFACE: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "llama": (
        {**_BASE, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 1e4},
        torch.float32,
    ),
    "llama3_rope": (
        {
            **_BASE,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        torch.float32,
    ),
    "llama_wide": (
        {
            **_BASE,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        torch.bfloat16,
    ),
    "mistral": (
        {
            **_BASE,
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "num_hidden_layers": 3,
            "rope_theta": 1e4,
            "sliding_window": 16,
        },
        torch.bfloat16,
    ),
    "phi3": (
        {
            **_BASE,
            "architectures": ["Phi3ForCausalLM"],
            "model_type": "phi3",
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "pad_token_id": 0,
            "rope_theta": 1e4,
            "rope_scaling": None,
            "sliding_window": 16,
        },
        torch.bfloat16,
    ),
    "qwen2": (
        {
            **_BASE,
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_theta": 1e6,
            "use_sliding_window": False,
            "sliding_window": 32,
            "max_window_layers": 2,
        },
        torch.float32,
    ),
    "qwen3": (
        {
            **_BASE,
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        torch.float16,
    ),
    "gemma3": (
        {
            **_BASE,
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 24,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window": 16,
            "sliding_window_pattern": 3,
        },
        torch.float32,
    ),
}

# GGUF type of each tensor, by position among the tensors of the file's layers.
GGUF: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama_mixed": (
        "llama",
        {**_BASE, "hidden_size": 256, "intermediate_size": 256, "head_dim": 64},
        ("Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q5_1", "Q8_0", "Q4_1", "Q5_0"),
    ),
    "phi3_mixed": (
        "phi3",
        {**_BASE, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 16},
        ("Q8_0", "Q4_0", "F16", "Q5_1", "Q4_1", "BF16", "Q5_0"),
    ),
    "qwen2_f16": ("qwen2", {**_BASE, "num_attention_heads": 2, "num_key_value_heads": 1}, ("F16",)),
    "qwen3_q8_0": ("qwen3", dict(_BASE), ("Q8_0",)),
    "gemma3_mixed": (
        "gemma3",
        {**_BASE, "num_hidden_layers": 7, "num_key_value_heads": 1, "sliding_window": 16},
        ("Q5_0", "Q8_0", "Q4_1", "BF16", "Q4_0", "Q5_1"),
    ),
}
ALL_FORMATS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"),
)


def make_all(folder: Path, text: str) -> None:
    """Writes every checkpoint below ``folder``."""
    bpe, spm = train_bpe(text), train_spm(text)
    for name, (config, dtype) in HUGGINGFACE.items():
        target = folder / "tiny" / name
        target.mkdir(parents=True, exist_ok=True)
        write_huggingface(target, config, dtype, bpe, shards=2 if name == "llama" else 1)
    (folder / "gguf").mkdir(parents=True, exist_ok=True)
    for name, (architecture, config, types) in GGUF.items():
        path = folder / "gguf" / f"{name}.gguf"
        write_gguf(path, architecture, config, types, bpe, spm)
    write_formats(folder / "gguf" / "formats.gguf")


def train_bpe(text: str) -> Tokenizer:
    """A small byte-level BPE tokenizer whose rules are those of ``tokenizer.ggml.pre`` smollm."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[
            AddedToken(token, special=True, normalized=False) for token in (BOS, EOS, START)
        ]
        + [AddedToken(END, special=False, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def train_spm(text: str) -> sentencepiece.SentencePieceProcessor:
    """A small SentencePiece BPE model with byte fallback, in the manner of Llama's and Gemma's."""
    from io import BytesIO

    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n", "\n\n", "<start_of_turn>"],
        control_symbols=["<end_of_turn>"],
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write_huggingface(
    folder: Path, config: Mapping[str, Any], dtype: torch.dtype, tokenizer: Tokenizer, shards: int
) -> None:
    """Writes config, tokenizer and ``shards`` safetensors files."""
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": [1, 2]})
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    weights = random_weights(config).items()
    tensors = {name: torch.from_numpy(values).to(dtype) for name, values in weights}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for index in range(shards):
        file_name = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(tensors.items())[index::shards])
        save_file(part, folder / file_name)
        weight_map.update(dict.fromkeys(part, file_name))
    index_file = folder / "model.safetensors.index.json"
    _write_json(index_file, {"metadata": {}, "weight_map": weight_map})


def random_weights(config: Mapping[str, Any]) -> dict[str, FloatArray]:
    """Hugging Face names to float32 weights, scaled so that activations stay of order 1."""
    generator = np.random.default_rng(0)
    gemma = config["model_type"] == "gemma3_text"
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim

    def matrix(rows: int, cols: int, scale: float = 1.0) -> FloatArray:
        return (generator.standard_normal((rows, cols)) * scale / cols**0.5).astype(np.float32)

    def gain(size: int) -> FloatArray:
        values = 0.2 * generator.standard_normal(size) + (0.0 if gemma else 1.0)
        return values.astype(np.float32)

    def bias(size: int) -> FloatArray:
        return (0.2 * generator.standard_normal(size)).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden, 3.0)}
    for index in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{index}."
        shapes = {"q": (query, hidden), "k": (key, hidden), "v": (key, hidden)}
        for name, (rows, cols) in {**shapes, "o": (hidden, query)}.items():
            projection = f"{prefix}self_attn.{name}_proj"
            weights[f"{projection}.weight"] = matrix(rows, cols, 1.5)
            qwen2 = config["model_type"] == "qwen2" and name != "o"
            if config.get("attention_bias") or qwen2:
                weights[f"{projection}.bias"] = bias(rows)
        for name, rows, cols in (
            ("gate", inner, hidden),
            ("up", inner, hidden),
            ("down", hidden, inner),
        ):
            weights[f"{prefix}mlp.{name}_proj.weight"] = matrix(rows, cols, 1.5)
            if config.get("mlp_bias"):
                weights[f"{prefix}mlp.{name}_proj.bias"] = bias(rows)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if gemma:
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        weights |= {f"{prefix}{name}.weight": gain(hidden) for name in norms}
        if gemma or config["model_type"] == "qwen3":
            names = (f"{prefix}self_attn.{name}_norm.weight" for name in "qk")
            weights |= {name: gain(dim) for name in names}
    weights["model.norm.weight"] = gain(hidden)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden, 3.0)
    return _fused(weights) if config["model_type"] == "phi3" else weights


def _fused(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The same with q, k and v as rows of one matrix and gate and up as those of another."""
    fused: dict[str, FloatArray] = {}
    for name, values in weights.items():
        target = re.sub(r"[qkv]_proj", "qkv_proj", name)
        target = re.sub(r"(gate|up)_proj", "gate_up_proj", target)
        fused[target] = np.concatenate([fused[target], values]) if target in fused else values
    return fused


def write_gguf(
    path: Path,
    architecture: str,
    config: Mapping[str, Any],
    types: tuple[str, ...],
    bpe: Tokenizer,
    spm: sentencepiece.SentencePieceProcessor,
) -> None:
    """Writes the random model of ``config`` with matrices in ``types``, taken in turn."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(1e6 if architecture == "gemma3" else 1e4)
    if architecture in ("llama", "phi3"):
        writer.add_rope_dimension_count(config["head_dim"])
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma3":
        _add_spm(writer, spm)
    else:
        _add_bpe(writer, bpe)
    model_type = "gemma3_text" if architecture == "gemma3" else architecture
    tied = {**config, "model_type": model_type, "tie_word_embeddings": True}
    counter = 0
    for index, (name, values) in enumerate(random_weights(tied).items()):
        gguf_name = _gguf_name(name, architecture)
        if values.ndim == 1:
            offset = 1.0 if architecture == "gemma3" else 0.0
            writer.add_tensor(gguf_name, values + np.float32(offset))
            continue
        type_name = types[counter % len(types)]
        counter += 1
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            values = _pairs_from_halves(values, config["head_dim"])
        data = encode(values, type_name, seed=index)
        kind = gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(gguf_name, data, raw_dtype=kind)
    _finish(writer)


def write_formats(path: Path) -> None:
    """One [3, 512] matrix in each format, whose values span several magnitudes."""
    writer = gguf.GGUFWriter(path, "test")
    generator = np.random.default_rng(1)
    for index, type_name in enumerate(ALL_FORMATS):
        scales = np.geomspace(1e-2, 10, 3)[:, None]
        values = (generator.standard_normal((3, 512)) * scales).astype(np.float32)
        kind = gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(type_name.lower(), encode(values, type_name, index), raw_dtype=kind)
    _finish(writer)


def encode(values: FloatArray, type_name: str, seed: int) -> np.ndarray[Any, Any]:
    """``values`` in a GGUF type. For K-quants, which the gguf package cannot encode: random blocks
    of about the same standard deviation."""
    kind = gguf.GGMLQuantizationType[type_name]
    if type_name == "F32":
        return values
    if type_name == "F16":
        return values.astype(np.float16)
    if not type_name.endswith("_K"):
        return gguf.quantize(values, kind)
    generator = np.random.default_rng(seed)
    rows = [
        _random_k_blocks(row.size // 256, float(row.std()), type_name, generator) for row in values
    ]
    return np.stack(rows)


def _random_k_blocks(
    count: int, deviation: float, type_name: str, generator: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``count`` blocks of 256 values as bytes; any bits are valid codes, only the scales matter."""
    block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]][1]
    blocks = generator.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    if type_name == "Q6_K":  # 192 bytes of codes (-32..31), 16 scales (i8), d (f16)
        scales = generator.integers(-32, 32, (count, 16), dtype=np.int8)
        blocks[:, 192:208] = scales.view(np.uint8)
        d = deviation / (18.5 * 18.5)
        blocks[:, 208:210] = _float16_bytes(d)
    else:  # d, dmin (f16), packed 6-bit scales and minimums, codes of 4 or 5 bits
        codes = 16 if type_name == "Q4_K" else 32
        d = deviation / (0.29 * codes * 37)
        blocks[:, 0:2] = _float16_bytes(d)
        blocks[:, 2:4] = _float16_bytes(d * (codes - 1) / 2)
    return blocks.reshape(-1)


def _float16_bytes(value: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


def _add_bpe(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    state = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    special = {token["content"]: 3 if token["special"] else 4 for token in state["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_types([special.get(piece, 1) for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_spm(writer: gguf.GGUFWriter, spm: sentencepiece.SentencePieceProcessor) -> None:
    ids = range(spm.get_piece_size())
    kinds = [
        2 if spm.is_unknown(i) else 3 if spm.is_control(i) else 6 if spm.is_byte(i) else 1
        for i in ids
    ]
    for token in ("\n", "\n\n", "<start_of_turn>"):
        kinds[spm.piece_to_id(token)] = 4
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([spm.id_to_piece(i) for i in ids])
    writer.add_token_scores([spm.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(spm.unk_id())
    writer.add_bos_token_id(spm.bos_id())
    writer.add_eos_token_id(spm.eos_id())
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _gguf_name(name: str, architecture: str) -> str:
    table = {
        "embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
        "post_attention_layernorm": (
            "post_attention_norm" if architecture == "gemma3" else "ffn_norm"
        ),
        "self_attn.qkv_proj": "attn_qkv",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    stem, _, kind = name.rpartition(".")
    target = next(target for source, target in table.items() if stem.endswith(source))
    parts = stem.split(".")
    layer = f"blk.{parts[2]}." if parts[1] == "layers" else ""
    return f"{layer}{target}.{kind}"


def _pairs_from_halves(rows: FloatArray, dim: int) -> FloatArray:
    """Rows of each head from (x0, x1, ..., y0, y1, ...) to (x0, y0, x1, y1, ...)."""
    halves = rows.reshape(-1, 2, dim // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main(arguments: Iterable[str]) -> None:
    (folder,) = arguments
    text = Path(__file__).resolve().parents[1] / "tests" / "golden" / "text.txt"
    make_all(Path(folder), text.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])

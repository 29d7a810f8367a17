# SPDX-License-Identifier: Apache-2.0
"""Float32 logits by transformers, for comparison with the engine.

Weights of GGUF files are dequantised by the ``gguf`` package. Nothing here uses manymind.

    reference = load_reference("model.gguf")          # or a Hugging Face folder
    for start, rows in reference.logit_chunks(ids):   # rows: float32 [n, vocab_size]
        ...
    mean_kl(reference.logit_chunks(ids), engine_chunks)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

_STEMS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_STEMS = {
    **_STEMS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI_STEMS = {**_STEMS, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_FAMILY_STEMS = {"gemma3": _GEMMA_STEMS, "phi3": _PHI_STEMS}


class Reference:
    """A transformers model in float32 on the CPU."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.float().eval()
        self._last: tuple[list[int], torch.Tensor] | None = None

    @torch.inference_mode()
    def logit_chunks(
        self, ids: Sequence[int], rows: int = 256
    ) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Teacher-forced logits in slices of ``rows`` positions: (first position, [n, vocab_size]).

        The layers run once over the whole sequence; only the output matrix runs by slices, so that
        a vocabulary of 262k does not need gigabytes. The last sequence's hidden states are kept.
        """
        if self._last is None or self._last[0] != list(ids):
            hidden = self.model.model(torch.tensor([list(ids)]), use_cache=False)[0][0]
            self._last = list(ids), hidden
        hidden = self._last[1]
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        for start in range(0, len(ids), rows):
            logits = self.model.lm_head(hidden[start : start + rows])
            if cap:
                logits = cap * torch.tanh(logits / cap)
            yield start, logits.numpy()

    def logits(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All logits, [len(ids), vocab_size]."""
        return np.concatenate([rows for _, rows in self.logit_chunks(ids)])


def load_reference(path: str | Path) -> Reference:
    """Opens a .gguf file or a Hugging Face folder."""
    if Path(path).is_dir():
        config = AutoConfig.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=torch.float32, attn_implementation="eager"
        )
        return Reference(model)
    return Reference(_model_from_gguf(Path(path)))


def reference_logits(path: str | Path, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of the model at ``path``, float32 [len(ids), vocab_size]."""
    return load_reference(path).logits(ids)


def mean_kl(
    reference: Iterable[tuple[int, np.ndarray[Any, Any]]],
    candidate: Iterable[tuple[int, np.ndarray[Any, Any]]],
) -> float:
    """Mean over positions of KL(reference || candidate), in nats.

    Both yield (first position, logits [n, vocab_size]) for the same slices.
    """
    total, count = 0.0, 0
    for (start, expected), (other_start, found) in zip(reference, candidate, strict=True):
        if start != other_start or expected.shape != found.shape:
            raise ValueError("slices of the two models differ")
        # Row by row: what is computed of a vocabulary of 262k stays in the cache.
        total += sum(map(_kl, expected, found))
        count += len(expected)
    return total / count


def _kl(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """KL of the softmax of one position's logits, in double precision."""
    x = expected.astype(np.float64) - expected.max()
    y = found.astype(np.float64) - found.max()
    weights = np.exp(x)
    total = weights.sum()
    return float(weights @ (x - y) / total - np.log(total) + np.log(np.exp(y).sum()))


def _model_from_gguf(path: Path) -> PreTrainedModel:
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    config = _config(reader, architecture)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {
        name: torch.from_numpy(np.ascontiguousarray(values))
        for name, values in _weights(reader, architecture, config)
    }
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    if missing or unexpected:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config)  # its tables were left on the meta device
    _restore_embedding_scale(model)
    return model


def _restore_embedding_scale(model: PreTrainedModel) -> None:
    embedding = model.model.embed_tokens
    if hasattr(embedding, "embed_scale"):
        embedding.embed_scale = torch.tensor(model.config.hidden_size**0.5)


def _config(reader: gguf.GGUFReader, architecture: str) -> PretrainedConfig:
    def value(key: str, default: Any = None) -> Any:
        field = reader.fields.get(f"{architecture}.{key}")
        return default if field is None else field.contents()

    names = {tensor.name for tensor in reader.tensors}
    vocab_size = next(t.shape[1] for t in reader.tensors if t.name == "token_embd.weight")
    heads = value("attention.head_count")
    common = {
        "vocab_size": int(vocab_size),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", value("embedding_length") // heads),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in names,
    }
    if architecture == "gemma3":
        return Gemma3TextConfig(
            **common,
            sliding_window=value("attention.sliding_window"),
            query_pre_attn_scalar=common["head_dim"],
            rope_theta=value("rope.freq_base"),
            rope_local_base_freq=10000.0,
        )
    if architecture == "phi3":
        return Phi3Config(
            **common,
            sliding_window=value("attention.sliding_window") or None,
            rope_theta=value("rope.freq_base", 10000.0),
            pad_token_id=None,
        )
    classes = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    if architecture == "qwen2":
        del common["head_dim"]
    return classes[architecture](**common, rope_theta=value("rope.freq_base", 10000.0))


def _weights(
    reader: gguf.GGUFReader, architecture: str, config: PretrainedConfig
) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    stems = _FAMILY_STEMS.get(architecture, _STEMS)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape(tuple(int(extent) for extent in reversed(tensor.shape)))
        stem, _, kind = tensor.name.rpartition(".")
        prefix, _, stem = stem.rpartition(".")
        layer = f"model.layers.{prefix.removeprefix('blk.')}." if prefix else ""
        if architecture == "llama" and stem in ("attn_q", "attn_k"):
            is_query = stem == "attn_q"
            count = config.num_attention_heads if is_query else config.num_key_value_heads
            values = _halves_from_pairs(values, count)
        if architecture == "gemma3" and stem.endswith("norm"):
            values = values - 1
        yield f"{layer}{stems[stem]}.{kind}", values


def _halves_from_pairs(
    rows: np.ndarray[Any, np.dtype[np.float32]], heads: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of each head from (x0, y0, x1, y1, ...) to (x0, x1, ..., y0, y1, ...)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)

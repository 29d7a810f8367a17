# SPDX-License-Identifier: Apache-2.0
"""A tiny checkpoint of eight heads, which two, four and eight ranks can share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HEADS, HEAD_DIM, LAYERS, INNER, VOCABULARY = 8, 32, 2, 256, 320
_HIDDEN = HEADS * HEAD_DIM
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def write_checkpoint(folder: Path) -> None:
    """Seeded random weights in float32, in the Hugging Face layout; without a tokenizer."""
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    header: dict[str, Any] = {}
    end, parts = 0, []
    for name, values in _weights().items():
        data = values.tobytes()
        span = [end, end + len(data)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": span}
        end += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + b"".join(parts)
    (folder / "model.safetensors").write_bytes(content)


def _weights() -> dict[str, np.ndarray[Any, Any]]:
    import numpy as np

    random = np.random.default_rng(8)

    def matrix(rows: int, cols: int) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = random.standard_normal((rows, cols), dtype=np.float32)
        values *= 2 / cols**0.5
        return values

    norm = np.ones(_HIDDEN, np.float32)
    weights = {
        "model.embed_tokens.weight": matrix(VOCABULARY, _HIDDEN),
        "model.norm.weight": norm,
        "lm_head.weight": matrix(VOCABULARY, _HIDDEN),
    }
    shapes = {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_HIDDEN, _HIDDEN),
        "self_attn.v_proj": (_HIDDEN, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (INNER, _HIDDEN),
        "mlp.up_proj": (INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, INNER),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights |= {f"{at}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        weights |= {f"{at}{name}.weight": norm for name in _NORMS}
    return weights


_NORMS = ("input_layernorm", "post_attention_layernorm")

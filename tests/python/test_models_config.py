# SPDX-License-Identifier: Apache-2.0
"""From configuration files to DecoderConfig: values, options and refusals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN, TINY_CHECKPOINTS

from manymind.checkpoint import Checkpoint, TensorSource, open_checkpoint
from manymind.errors import CheckpointError, UnsupportedModelError
from manymind.models import (
    AttentionConfig,
    DecoderConfig,
    FfnConfig,
    LayerConfig,
    LoadedModel,
    RopeConfig,
    load_model,
    phi3,
    rope,
)
from manymind.models.weights import SourceNames, bind_weights

TINY = GOLDEN / "tiny"


def load(
    path: Path,
    tensors: Mapping[str, TensorSource | None] | None = None,
    **changes: Any,
) -> LoadedModel:
    """The checkpoint at ``path`` with changed configuration values and tensors (None removes)."""
    checkpoint = open_checkpoint(path)
    merged = {**checkpoint.tensors, **(tensors or {})}
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    config = {**checkpoint.config, **changes}
    return load_model(dataclasses.replace(checkpoint, config=config, tensors=kept))


@pytest.mark.parametrize("path", TINY_CHECKPOINTS, ids=lambda path: path.name)
def test_weights_have_canonical_names_and_float32_vectors(path: Path) -> None:
    model = load(path)
    for name, weight in model.weights.items():
        assert weight.name == name
        stem = name.removesuffix(".bias").rpartition(".")[2]
        if len(weight.shape) == 1:
            assert weight.format == "f32"
            assert len(weight.data) == 4 * weight.shape[0]
        by_rows = {"embed_tokens", "lm_head", "gate_proj", "up_proj", "q_proj", "k_proj", "v_proj"}
        by_columns = {"o_proj", "down_proj"} if not name.endswith(".bias") else set()
        expected = 0 if stem in by_rows else 1 if stem in by_columns else None
        assert weight.shard_axis == expected, name
    assert ("lm_head" in model.weights) != model.config.tie_word_embeddings


def test_gguf_weights_are_the_bytes_of_the_file() -> None:
    with open_checkpoint(GOLDEN / "gguf" / "llama_mixed.gguf") as checkpoint:
        weights = load_model(checkpoint).weights
        for canonical, name in (
            ("embed_tokens", "token_embd.weight"),
            ("layers.1.down_proj", "blk.1.ffn_down.weight"),
            ("layers.0.attn_norm", "blk.0.attn_norm.weight"),
        ):
            assert weights[canonical].data is checkpoint.tensors[name].data


@pytest.mark.parametrize(
    ("path", "qkv", "gate_up"),
    [
        (TINY / "phi3", "model.layers.1.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"),
        (GOLDEN / "gguf" / "phi3_mixed.gguf", "blk.1.attn_qkv", "blk.1.ffn_up"),
    ],
    ids=["folder", "gguf"],
)
def test_fused_matrices_are_split_into_views(path: Path, qkv: str, gate_up: str) -> None:
    with open_checkpoint(path) as checkpoint:
        weights = load_model(checkpoint).weights
        for source, parts in ((qkv, "qkv"), (gate_up, ("gate", "up"))):
            whole = checkpoint.tensors[f"{source}.weight"].data
            views = [weights[f"layers.1.{part}_proj"].data for part in parts]
            assert b"".join(views) == whole
            assert all(view.obj is whole.obj for view in views)


def test_fused_vectors_are_split_and_converted() -> None:
    """No family has such biases yet; the rule is the same."""
    config, tensors = load(TINY / "phi3").config, open_checkpoint(TINY / "phi3").tensors
    layers = tuple(
        dataclasses.replace(layer, attention=dataclasses.replace(layer.attention, qkv_bias=True))
        for layer in config.layers
    )
    values = memoryview(np.arange(128, dtype=np.float16).tobytes())
    biases = {
        name: TensorSource(name, "f16", (128,), values)
        for name in (f"model.layers.{index}.self_attn.qkv_proj.bias" for index in range(3))
    }
    names = SourceNames(phi3.STEMS)
    weights = bind_weights(dataclasses.replace(config, layers=layers), {**tensors, **biases}, names)
    found = [weights[f"layers.2.{part}_proj.bias"].data.cast("f").tolist() for part in "qkv"]
    assert found == [list(range(64)), list(range(64, 96)), list(range(96, 128))]


def test_fused_matrix_of_another_shape_is_named() -> None:
    path, name = TINY / "phi3", "model.layers.0.self_attn.qkv_proj.weight"
    tensor = open_checkpoint(path).tensors[name]
    with pytest.raises(CheckpointError, match=f"{name}.*shape .128, 64.*none"):
        load(path, {name: None})
    with pytest.raises(CheckpointError, match=f"shape of {name}.*128, 64"):
        load(path, num_key_value_heads=2)
    short = dataclasses.replace(tensor, shape=(127, 64))
    with pytest.raises(CheckpointError, match=f"shape of {name}.*127, 64"):
        load(path, {name: short})


def test_gemma_norms_are_gains() -> None:
    with open_checkpoint(TINY / "gemma3") as checkpoint:
        stored = checkpoint.tensors["model.norm.weight"].data.cast("f").tolist()
        loaded = load_model(checkpoint).weights["final_norm"].data.cast("f").tolist()
    assert loaded == pytest.approx([value + 1 for value in stored])


def test_gemma_alternates_ropes_and_windows() -> None:
    config = load(TINY / "gemma3").config
    assert [layer.attention.window for layer in config.layers] == [16, 16, 0]
    assert [layer.attention.rope for layer in config.layers] == [1, 1, 0]
    assert config.ropes[0].inv_freq[1] == pytest.approx(1e6 ** (-1 / 16))
    assert config.ropes[1].inv_freq[1] == pytest.approx(1e4 ** (-1 / 16))
    assert config.embed_scale == 8.0
    assert config.layers[0].attention.scale == pytest.approx(24**-0.5)


def test_gemma_in_the_form_of_transformers_5() -> None:
    nested = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
    }
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    config = load(TINY / "gemma3", rope_parameters=nested, layer_types=types).config
    assert [layer.attention.window for layer in config.layers] == [0, 16, 16]
    assert config.ropes[0].inv_freq[0] == pytest.approx(1 / 8)
    assert config.ropes[1].inv_freq[1] == pytest.approx(5e4 ** (-1 / 16))


def test_qwen2_window_begins_at_a_layer() -> None:
    path = TINY / "qwen2"
    assert [layer.attention.window for layer in load(path).config.layers] == [0, 0]
    config = load(path, use_sliding_window=True, max_window_layers=1).config
    assert [layer.attention.window for layer in config.layers] == [0, 32]


def test_phi3_window_is_optional_and_rms_norm_eps_has_the_familys_default() -> None:
    config = load(TINY / "phi3", rms_norm_eps=None).config
    assert [layer.attention.window for layer in config.layers] == [16, 16, 16]
    assert config.norm_eps == 1e-5
    config = load(TINY / "phi3", sliding_window=None).config
    assert [layer.attention.window for layer in config.layers] == [0, 0, 0]


def test_phi3_gguf_states_its_window() -> None:
    path, key = GOLDEN / "gguf" / "phi3_mixed.gguf", "phi3.attention.sliding_window"
    for stated, window in ((16, 16), (0, 0), (None, 0)):
        layers = load(path, **{key: stated}).config.layers
        assert [layer.attention.window for layer in layers] == [window, window]


def test_phi3_gguf_refuses_the_factors_of_longrope() -> None:
    factors = TensorSource("rope_factors_long.weight", "f32", (16,), memoryview(bytes(64)))
    with pytest.raises(UnsupportedModelError, match=r"rope_factors_long\.weight.*longrope"):
        load(GOLDEN / "gguf" / "phi3_mixed.gguf", {factors.name: factors})


def test_yarn_extends_the_context() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    config = load(TINY / "llama", rope_scaling=yarn).config
    assert config.context_length == 1024
    assert config.ropes[0].attention_factor > 1
    assert load(TINY / "llama").config.context_length == 256


def test_gguf_linear_and_yarn_scaling() -> None:
    path, prefix = GOLDEN / "gguf" / "qwen3_q8_0.gguf", "qwen3.rope.scaling."
    plain = load(path).config.ropes[0]
    linear = load(path, **{f"{prefix}type": "linear", f"{prefix}factor": 2.0}).config.ropes[0]
    assert linear.inv_freq == pytest.approx([value / 2 for value in plain.inv_freq])
    yarn = {f"{prefix}type": "yarn", f"{prefix}factor": 4.0, f"{prefix}original_context_length": 64}
    expected = rope.yarn_rope(32, 1e4, "neox", rope.YarnScaling(4.0, 64))
    assert load(path, **yarn).config.ropes[0] == expected


def test_end_tokens_come_from_the_generation_config() -> None:
    checkpoint = open_checkpoint(TINY / "llama")
    assert load_model(checkpoint).config.eos_token_ids == (1, 2)
    without = dataclasses.replace(checkpoint, generation_config={})
    assert load_model(without).config.eos_token_ids == (1,)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": -64}, "hidden_size"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"num_hidden_layers": 1 << 30}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        ({"head_dim": 31}, "dim"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rms_norm_eps": 0}, "norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"bos_token_id": [None]}, "bos_token_id"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": 1e400}, "rope_theta"),
        ({"rope_scaling": 4}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope factors"),
        ({"vocab_size": 449}, "embed_tokens"),
        ({"intermediate_size": 95}, "gate_proj"),
        ({"num_hidden_layers": 3}, "layers.2"),
        ({"num_hidden_layers": 1}, "tensors"),
    ],
)
def test_bad_configuration_names_the_field(changes: dict[str, Any], field: str) -> None:
    path = TINY / "llama"
    checkpoint = open_checkpoint(path)
    generation = {} if "eos_token_id" in changes else checkpoint.generation_config
    config = {**checkpoint.config, **changes}
    changed = dataclasses.replace(checkpoint, config=config, generation_config=generation)
    with pytest.raises(CheckpointError) as caught:
        load_model(changed)
    assert field in caught.value.field
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "changes", "word"),
    [
        ("llama", {"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ("llama", {"architectures": []}, "architecture"),
        ("llama", {"hidden_act": "relu"}, "relu"),
        ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("llama", {"rope_scaling": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1.0] * 16}}, "longrope.*su"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "longrope.*yarn"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "longrope.*longrope"),
        ("phi3", {"partial_rotary_factor": 0.75}, "partial_rotary_factor.*0.75"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_unsupported_options_are_refused(folder: str, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedModelError, match=word):
        load(TINY / folder, **changes)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"general.architecture": "mamba"}, UnsupportedModelError),
        ({"general.architecture": 7}, CheckpointError),
        ({"llama.expert_count": 8}, UnsupportedModelError),
        ({"split.count": 2}, UnsupportedModelError),
        ({"llama.attention.value_length": 32}, UnsupportedModelError),
        ({"llama.rope.scaling.type": "longrope"}, UnsupportedModelError),
        ({"llama.rope.scaling.attn_factor": 1.5}, UnsupportedModelError),
        ({"llama.attention.sliding_window": 512}, UnsupportedModelError),
        ({"llama.block_count": 10**9}, CheckpointError),
        ({"llama.attention.head_count": 0}, CheckpointError),
        ({"llama.embedding_length": 64}, CheckpointError),
    ],
)
def test_bad_gguf_metadata_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        load(GOLDEN / "gguf" / "llama_mixed.gguf", **changes)


def test_missing_extra_and_misshapen_tensors() -> None:
    path = TINY / "llama"
    name = "model.layers.0.mlp.up_proj.weight"
    tensor = open_checkpoint(path).tensors[name]
    with pytest.raises(CheckpointError, match=name):
        load(path, {name: None})
    turned = dataclasses.replace(tensor, shape=tensor.shape[::-1])
    with pytest.raises(CheckpointError, match=f"shape of {name}"):
        load(path, {name: turned})
    with pytest.raises(CheckpointError, match="surprise"):
        load(path, {"surprise": tensor})
    # Rotary tables of old exports are known and not needed.
    load(path, {"model.layers.0.self_attn.rotary_emb.inv_freq": tensor})


def test_quantised_norm_is_refused() -> None:
    path, name = GOLDEN / "gguf" / "qwen3_q8_0.gguf", "output_norm.weight"
    tensor = open_checkpoint(path).tensors[name]
    with pytest.raises(CheckpointError, match="format of output_norm"):
        load(path, {name: dataclasses.replace(tensor, format="gguf_q8_0")})


def test_gguf_rope_factors_divide_frequencies() -> None:
    path = GOLDEN / "gguf" / "llama_mixed.gguf"
    factors = memoryview(bytearray(4 * 32)).cast("f")
    for index in range(32):
        factors[index] = 1.0 + index
    tensor = TensorSource("rope_freqs.weight", "f32", (32,), factors.cast("B"))
    plain, divided = load(path).config, load(path, {tensor.name: tensor}).config
    expected = [value / (1 + i) for i, value in enumerate(plain.ropes[0].inv_freq)]
    assert divided.ropes[0].inv_freq == pytest.approx(expected)
    assert divided.ropes[0].style == "interleaved"


def test_llama3_rope_keeps_short_and_divides_long_wavelengths() -> None:
    scaling = rope.Llama3Scaling(8.0, 8192, 1.0, 4.0)
    scaled = rope.llama3_rope(128, 5e5, "neox", scaling).inv_freq
    plain = rope.default_inv_freq(128, 5e5)
    for new, old in zip(scaled, plain, strict=True):
        wavelength = 2 * math.pi / old
        if wavelength < 8192 / 4:
            assert new == pytest.approx(old)
        elif wavelength > 8192:
            assert new == pytest.approx(old / 8)
        else:
            assert old / 8 < new < old


def test_yarn_attention_factor_is_the_papers_unless_given() -> None:
    scaling = rope.YarnScaling(4.0, 32768)
    assert rope.yarn_rope(128, 1e6, "neox", scaling).attention_factor == pytest.approx(
        0.1 * math.log(4) + 1
    )
    given = dataclasses.replace(scaling, attention_factor=1.5)
    assert rope.yarn_rope(128, 1e6, "neox", given).attention_factor == 1.5


ROPE = RopeConfig(4, "neox", (1.0, 0.1))
ATTENTION = AttentionConfig(4, 2, 8, 0.5)
LAYER = LayerConfig(ATTENTION, FfnConfig(16))


@pytest.mark.parametrize(
    "make",
    [
        lambda: dataclasses.replace(ROPE, dim=3),
        lambda: dataclasses.replace(ROPE, style="other"),
        lambda: dataclasses.replace(ROPE, inv_freq=(1.0,)),
        lambda: dataclasses.replace(ROPE, inv_freq=(1.0, math.inf)),
        lambda: dataclasses.replace(ROPE, attention_factor=0.0),
        lambda: dataclasses.replace(ATTENTION, num_heads=3),
        lambda: dataclasses.replace(ATTENTION, scale=math.nan),
        lambda: dataclasses.replace(ATTENTION, window=-1),
        lambda: FfnConfig(0),
        lambda: DecoderConfig("x", 8, 8, 8, 1e-5, (), (LAYER,)),
        lambda: DecoderConfig("x", 8, 8, 8, 1e-5, (ROPE,), ()),
        lambda: DecoderConfig("x", 8, 8, 8, 1e-5, (RopeConfig(12, "neox", (1.0,) * 6),), (LAYER,)),
    ],
)
def test_inconsistent_configurations_cannot_be_made(make: Any) -> None:
    with pytest.raises(CheckpointError):
        make()


def test_checkpoint_without_architecture() -> None:
    empty = Checkpoint(Path("nowhere"), "huggingface", {}, {})
    with pytest.raises(CheckpointError, match="architectures"):
        load_model(empty)

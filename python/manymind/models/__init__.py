# SPDX-License-Identifier: Apache-2.0
"""Model families: from a checkpoint to a typed decoder configuration and its weights."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import CheckpointError, UnsupportedModelError
from manymind.models.config import (
    AttentionConfig,
    DecoderConfig,
    FfnConfig,
    LayerConfig,
    RopeConfig,
)
from manymind.models.family import ModelSource
from manymind.models.text_encoder import text_encoder_family
from manymind.models.weights import WeightSource, bind_weights

if TYPE_CHECKING:
    from manymind.models.vision_family import VisionSource

__all__ = [
    "AttentionConfig",
    "DecoderConfig",
    "FfnConfig",
    "LayerConfig",
    "LoadedModel",
    "RopeConfig",
    "WeightSource",
    "load_model",
]

# Architecture -> module of its family, which is imported on first use and has from_huggingface and
# from_gguf.
_HUGGINGFACE_FAMILIES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3_vision",
    "Idefics3ForConditionalGeneration": "idefics3",
    "InternVLForConditionalGeneration": "internvl",
    "LlavaForConditionalGeneration": "llava",
    "LlavaOnevisionForConditionalGeneration": "llava_onevision",
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
    "SmolVLMForConditionalGeneration": "idefics3",
}
_GGUF_FAMILIES = {
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
}


@dataclass(frozen=True)
class LoadedModel:
    """A decoder, its eyes if it has any, and all weights, which stay valid while their checkpoint
    is open."""

    config: DecoderConfig
    weights: Mapping[str, WeightSource]
    vision: VisionSource | None = None


def load_model(checkpoint: Checkpoint) -> LoadedModel:
    """Maps ``checkpoint`` to the decoder it describes.

    Raises UnsupportedModelError on an unknown architecture or option, CheckpointError on a
    contradictory configuration and on missing, surplus or mis-shaped tensors.
    """
    try:
        source = _family(checkpoint)(checkpoint)
        seen = source.vision.weights.used if source.vision else ()
        weights: Mapping[str, WeightSource] = bind_weights(
            source.config, checkpoint.tensors, source.names, seen
        )
        if source.vision:
            weights = ChainMap(weights, source.vision.weights)  # type: ignore[arg-type]
    except CheckpointError as error:
        raise error.located(checkpoint.path) from error
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{checkpoint.path}: {error}") from error
    except OverflowError as error:
        raise CheckpointError(
            "configuration", "numbers in range", error, checkpoint.path
        ) from error
    return LoadedModel(source.config, weights, source.vision)


def _family(checkpoint: Checkpoint) -> Callable[[Checkpoint], ModelSource]:
    if checkpoint.kind == "gguf":
        names = [Fields(checkpoint.config, "general.").string("architecture")]
        families = _GGUF_FAMILIES
    else:
        names = Fields(checkpoint.config).sequence("architectures")
        families = _HUGGINGFACE_FAMILIES
    if text_encoder_family(checkpoint) is not None:
        raise UnsupportedModelError(
            "architecture: expected a decoder, found an encoder: embedding_pipeline() takes it"
        )
    known = [name for name in names if isinstance(name, str) and name in families]
    if not known:
        raise UnsupportedModelError(
            f"architecture: expected one of {', '.join(families)}, "
            f"found {', '.join(map(str, names))}"
        )
    module = import_module(f"manymind.models.{families[known[0]]}")
    loader: Callable[[Checkpoint], ModelSource] = getattr(module, f"from_{checkpoint.kind}")
    return loader

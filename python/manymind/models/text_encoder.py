# SPDX-License-Identifier: Apache-2.0
"""Encoders that make one vector of a text; ``src/turbomind/models/text_encoder_config.h`` has the
same fields, says what they mean and checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import CheckpointError, UnsupportedModelError
from manymind.models.weights import WeightSource

# Architecture -> module of its family, which has from_huggingface.
_FAMILIES = {"BertModel": "bert"}


@dataclass(frozen=True)
class TextEncoderConfig:
    """A bidirectional transformer with norms after each residual.

    Attributes:
        max_positions: rows of the position table.
        pools_first: a text's vector is its first token's; else the mean of all.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    norm_eps: float
    activation: str = "gelu_erf"
    pools_first: bool = False


@dataclass(frozen=True)
class TextEncoderSource:
    """An encoder and its weights, which stay valid while their checkpoint is open.

    ``max_text_len``: most tokens of a text, those around it included.
    """

    config: TextEncoderConfig
    weights: Mapping[str, WeightSource]
    max_text_len: int


def text_encoder_family(checkpoint: Checkpoint) -> str | None:
    """The family of a checkpoint that is an encoder; None for any other."""
    if checkpoint.kind != "huggingface":
        return None
    names = Fields(checkpoint.config).raw("architectures")
    found = [name for name in names if name in _FAMILIES] if isinstance(names, list) else []
    return _FAMILIES[found[0]] if found else None


def load_text_encoder(checkpoint: Checkpoint) -> TextEncoderSource:
    """Maps a checkpoint to the encoder it describes; raises as ``load_model``."""
    family = text_encoder_family(checkpoint)
    if family is None:
        expected = f"expected one of {', '.join(_FAMILIES)}"
        raise UnsupportedModelError(f"{checkpoint.path}: architecture: {expected}")
    try:
        module = import_module(f"manymind.models.{family}")
        source: TextEncoderSource = module.from_huggingface(checkpoint)
    except CheckpointError as error:
        raise error.located(checkpoint.path) from error
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{checkpoint.path}: {error}") from error
    return source

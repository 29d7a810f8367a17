# SPDX-License-Identifier: Apache-2.0
"""manymind: one inference engine for language models on every device.

Importing the package loads none of its parts: each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manymind.api import Pipeline, pipeline
    from manymind.config import ChatTemplateConfig, EngineConfig, GenerationConfig, Response
    from manymind.embedding import EmbeddingPipeline, embedding_pipeline
    from manymind.lmdeploy_config import PytorchEngineConfig, TurbomindEngineConfig
    from manymind.media import MediaLimits, load_image
    from manymind.media_side import VisionConfig
    from manymind.session import Session

__version__ = "0.1.0"

_HOME = {
    "ChatTemplateConfig": "manymind.config",
    "EmbeddingPipeline": "manymind.embedding",
    "EngineConfig": "manymind.config",
    "GenerationConfig": "manymind.config",
    "MediaLimits": "manymind.media",
    "Pipeline": "manymind.api",
    "PytorchEngineConfig": "manymind.lmdeploy_config",
    "Response": "manymind.config",
    "Session": "manymind.session",
    "TurbomindEngineConfig": "manymind.lmdeploy_config",
    "VisionConfig": "manymind.media_side",
    "embedding_pipeline": "manymind.embedding",
    "load_image": "manymind.media",
    "pipeline": "manymind.api",
}

__all__ = [
    "ChatTemplateConfig",
    "EmbeddingPipeline",
    "EngineConfig",
    "GenerationConfig",
    "MediaLimits",
    "Pipeline",
    "PytorchEngineConfig",
    "Response",
    "Session",
    "TurbomindEngineConfig",
    "VisionConfig",
    "embedding_pipeline",
    "load_image",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'manymind' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value

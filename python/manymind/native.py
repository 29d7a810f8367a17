# SPDX-License-Identifier: Apache-2.0
"""Starts the native engine on a checkpoint: EngineConfig -> EngineOptions, weights handed over
without a copy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymind.config import EngineConfig
from manymind.validation import require

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.checkpoint import Checkpoint
    from manymind.media_side import VisionConfig
    from manymind.models.weights import WeightSource

_STEP_ROWS = 512
_SECONDS_BETWEEN_RELEASES = 0.01  # of a checkpoint's pages
_LOG_LEVELS = {"critical": "error"}  # where the engine has no level of its own
_DECODER_SETTINGS = (
    "kv_cache_dtype",
    "block_size",
    "max_batch_size",
    "cache_max_entry_count",
    "num_kv_blocks",
    "enable_prefix_caching",
    "max_queue_size",
)
_ENTRY_POINT_GROUP = "manymind.backends"


def start_engine(
    checkpoint: Checkpoint,
    config: EngineConfig,
    log_level: str | None = None,
    vision_config: VisionConfig | None = None,
) -> tuple[_turbomind.Engine, dict[str, Any]]:
    """Creates the engine, loads every weight and starts it; returns it and its memory plan."""
    from manymind import _turbomind
    from manymind.models import load_model

    _set_log_level(log_level)
    model = load_model(checkpoint)
    vision = model.vision.config if model.vision else None
    options = engine_options(config)
    if vision_config is not None:
        options.max_encoder_patches = vision_config.max_patches
        options.encoder_cache_bytes = vision_config.embedding_cache_bytes
    engine = _turbomind.Engine(model.config, options, vision)
    _load_weights(engine, model.weights.values(), checkpoint)
    return engine, engine.start()


def start_embedder(
    checkpoint: Checkpoint, config: EngineConfig, log_level: str | None = None
) -> tuple[_turbomind.Embedder, dict[str, int]]:
    """The same for an encoder; also returns the bytes of weights and of activations, and the width
    of its vectors. Settings of what it has not (KV cache, queue, batches of sequences) are refused.
    """
    from manymind import _turbomind
    from manymind.models.text_encoder import load_text_encoder

    _set_log_level(log_level)
    defaults = EngineConfig()
    for name in _DECODER_SETTINGS:
        default, found = getattr(defaults, name), getattr(config, name)
        require(
            found == default, name, f"{default!r} for an encoder, which has no use for it", found
        )
    source = load_text_encoder(checkpoint)
    options = engine_options(config)
    options.session_len = options.session_len or source.max_text_len
    embedder = _turbomind.Embedder(source.config, options)
    _load_weights(embedder, source.weights.values(), checkpoint)
    return embedder, {**embedder.start(), "hidden_size": source.config.hidden_size}


def _load_weights(
    engine: _turbomind.Engine | _turbomind.Embedder,
    weights: Iterable[WeightSource],
    checkpoint: Checkpoint,
) -> None:
    """Hands the weights over."""
    with pages_go_as_they_are_read(checkpoint):
        for weight in weights:
            engine.load_weight(weight.name, weight.format, weight.shape, weight.data)


@contextmanager
def pages_go_as_they_are_read(checkpoint: Checkpoint) -> Iterator[None]:
    """The device has its own copy of what it was given. Without this, the peak of memory would be
    two copies of the model; from one weight to the next, still two of the largest, and an embedding
    of 262k tokens is most of a small model. What goes too early is mapped again when it is read.
    """
    done = threading.Event()

    def release() -> None:
        while not done.wait(_SECONDS_BETWEEN_RELEASES):
            checkpoint.release_pages()

    thread = threading.Thread(target=release, name="manymind-pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        checkpoint.release_pages()


def _set_log_level(level: str | None) -> None:
    from manymind import _turbomind
    from manymind.environment import log_level as default_log_level

    level = level.lower() if level else default_log_level()
    _turbomind.set_log_level(_LOG_LEVELS.get(level, level))


def engine_options(config: EngineConfig) -> _turbomind.EngineOptions:
    """The engine's own options for a configuration."""
    from manymind import _turbomind

    config.validate()
    options = _turbomind.EngineOptions()
    options.backend = config.backend
    options.device_index = config.device_index
    options.num_threads = config.num_threads
    options.tp = config.tp
    options.dtype = config.dtype
    options.weight_dtype = config.weight_dtype
    options.compute_dtype = config.compute_dtype
    options.kv_cache_dtype = config.kv_cache_dtype
    options.block_size = config.block_size
    options.session_len = config.session_len
    options.max_num_seqs = config.max_batch_size
    rows = config.max_prefill_token_num or max(_STEP_ROWS, config.max_batch_size)
    options.max_num_batched_tokens = rows
    options.cache_memory_fraction = config.cache_max_entry_count
    options.num_kv_blocks = config.num_kv_blocks
    options.enable_prefix_caching = config.enable_prefix_caching
    options.max_queue_size = config.max_queue_size
    options.plugin_paths = plugin_paths(config)
    options.backend_config = dict(config.backend_config)
    return options


def plugin_paths(config: EngineConfig | None = None) -> list[str]:
    """Where plug-ins are looked for: explicit paths, installed entry points, the module's folder.

    Of several of one name the first along these paths is taken.

    An entry point of the group ``manymind.backends`` names a function that returns the path of a
    shared library.
    """
    from manymind import _turbomind

    explicit = [str(path) for path in config.plugin_paths] if config else []
    installed = [str(point.load()()) for point in entry_points(group=_ENTRY_POINT_GROUP)]
    return [*explicit, *installed, str(Path(_turbomind.__file__).parent)]

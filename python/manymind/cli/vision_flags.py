# SPDX-License-Identifier: Apache-2.0
"""Flags that say how pictures are taken in: the fields of ``VisionConfig`` and ``MediaLimits``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from manymind.errors import InvalidParameterError

if TYPE_CHECKING:
    from manymind.embedding_runtime import EmbeddingRuntime
    from manymind.media_side import VisionConfig
    from manymind.runtime import Runtime

Command = TypeVar("Command", bound=Callable[..., None])

# Flags that cannot have the field's own name, which means something else beside an engine's flags.
_CONFIG_FIELDS = {"media_threads": "num_threads"}
_LIMIT_FIELDS = {
    "media_max_bytes": "max_bytes",
    "media_max_pixels": "max_pixels",
    "media_max_frames": "max_frames",
    "media_timeout": "timeout",
    "media_allow_urls": "allow_urls",
    "media_allow_private_addresses": "allow_private_addresses",
    "media_folder": "allow_files",
}


def _flags(
    *,
    pan_and_scan: bool | None = None,
    max_patches: int = 0,
    embedding_cache_bytes: int = 0,
    prepared_cache_bytes: int = 256 << 20,
    max_pending_bytes: int = 1 << 30,
    max_pending_pixels: int = 1 << 29,
    max_pending_patches: int = 1 << 20,
    media_threads: int = 0,
    media_max_bytes: int = 64 << 20,
    media_max_pixels: int = 64_000_000,
    media_max_frames: int = 768,
    media_timeout: float = 20.0,
    media_allow_urls: bool = True,
    media_allow_private_addresses: bool = False,
    media_folder: str | None = None,
) -> None:
    """
    pan_and_scan: crops of a long picture follow the whole (Gemma 3); default: as the
        checkpoint says.
    max_patches: most patches of one picture or tile, and of one engine step; 0 = auto.
    embedding_cache_bytes: device memory that keeps embeddings of pictures; 0 = auto.
    prepared_cache_bytes: host memory that keeps preprocessed pictures.
    max_pending_bytes: encoded pictures of all unfinished requests together.
    max_pending_pixels: the same, decoded.
    max_pending_patches: the same, preprocessed.
    media_threads: that decode and preprocess pictures; 0 = all cores.
    media_max_bytes: of one encoded picture.
    media_max_pixels: of one decoded picture.
    media_max_frames: of a video.
    media_timeout: seconds to fetch a picture.
    media_allow_urls: whether pictures are fetched from the web.
    media_allow_private_addresses: also from addresses that are not public.
    media_folder: local pictures may be read, from below this folder only.
    """


def takes_vision_flags(command: Command) -> Command:
    """Adds the flags to a command, which gets those that were given in its ``**vision``."""
    own = inspect.signature(command)
    named = [item for item in own.parameters.values() if item.kind is not item.VAR_KEYWORD]
    shared = inspect.signature(_flags).parameters.values()
    command.__signature__ = own.replace(parameters=[*named, *shared])  # type: ignore[attr-defined]
    lines = inspect.cleandoc(_flags.__doc__ or "").splitlines()
    command.__doc__ = (command.__doc__ or "").rstrip() + "".join(
        f"\n        {line}" for line in lines
    )
    return command


def vision_config(flags: Mapping[str, Any], local_files: bool) -> VisionConfig:
    """The settings that the flags mean. local_files: whether any may be read where no folder is
    named. Raises InvalidParameterError naming the field.
    """
    from manymind.media import MediaLimits
    from manymind.media_side import VisionConfig

    if flags.get("media_folder") is None:
        flags = {**flags, "media_folder": local_files}
    limits = {field: flags[name] for name, field in _LIMIT_FIELDS.items() if name in flags}
    settings = {
        _CONFIG_FIELDS.get(name, name): value
        for name, value in flags.items()
        if name not in _LIMIT_FIELDS
    }
    return VisionConfig(**settings, limits=MediaLimits(**limits))


def refuse_without_pictures(runtime: Runtime | EmbeddingRuntime, flags: Mapping[str, Any]) -> None:
    """Raises InvalidParameterError for flags about pictures that the model cannot see."""
    if flags and runtime.media is None:
        raise InvalidParameterError(f"{next(iter(flags))}: this model takes no pictures")

# SPDX-License-Identifier: Apache-2.0
"""Videos as frames: lists of pictures, arrays, encoded frames in one data URL, and animated
pictures. Containers of video codecs are refused: their decoders are no part of this.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from manymind.errors import MediaError, MediaTooLargeError
from manymind.media import (
    FORMATS,
    LoadedImage,
    MediaLimits,
    decoding,
    open_image,
    read_bytes,
)

if TYPE_CHECKING:
    from PIL.Image import Image

VideoSource: TypeAlias = "str | os.PathLike[str] | bytes | Sequence[Any]"

DEFAULT_FPS = 2.0  # of frames that come without
_DEFAULT_SECONDS = 0.1  # of a frame of an animation that does not say
_FRAMES_URL = "data:video/jpeg;base64,"


@dataclass(frozen=True, eq=False)
class LoadedAnimation:
    """An animated picture whose size is known, not decoded yet.

    Attributes:
        count: of its frames.
    """

    source: bytes
    height: int
    width: int
    count: int

    def decode_all(self) -> list[Image]:
        """The frames as they are shown, "duration" in their info: milliseconds. Raises MediaError
        if one is damaged."""
        from PIL import Image, ImageSequence

        with decoding(), Image.open(io.BytesIO(self.source), formats=FORMATS) as image:
            frames = []
            for frame in ImageSequence.Iterator(image):
                # What was charged is the size of the first; a frame that differs is not decoded.
                if frame.size != (self.width, self.height):
                    raise MediaError(
                        f"video: expected frames of {self.width} x {self.height}, "
                        f"found one of {frame.size[0]} x {frame.size[1]}"
                    )
                frame.load()  # some formats tell the duration only then
                frames.append(frame.copy())
            return frames


@dataclass(frozen=True)
class LoadedVideo:
    """Frames, ``fps`` of them per second; 0 = as they say when they are decoded."""

    frames: Sequence[LoadedImage | LoadedAnimation]
    fps: float


def shown_fps(frames: Sequence[Image]) -> float:
    """The mean rate of an animation's frames."""
    seconds = [float(frame.info.get("duration") or 0) / 1000 for frame in frames]
    return len(frames) / sum(each or _DEFAULT_SECONDS for each in seconds)


def open_video(source: VideoSource, fps: float, limits: MediaLimits) -> LoadedVideo:
    """A video of which only headers were read.

    source: a list of pictures; uint8 [frames, height, width, 3]; a URL, a path or the bytes of an
    animated picture; or a data URL of JPEG frames with commas between them. fps: of the frames;
    0 = as an animation says, else 2.
    Raises MediaError and its kinds.
    """
    if isinstance(source, str) and source[: len(_FRAMES_URL)].lower() == _FRAMES_URL:
        parts = source[len(_FRAMES_URL) :].split(",")
        source = [f"data:image/jpeg;base64,{part}" for part in parts]
    if isinstance(source, (str, os.PathLike)):
        source = read_bytes(source, limits)
    if isinstance(source, bytes):
        return LoadedVideo([_open_animation(source, limits)], fps)
    frames: Sequence[Any] = _array_frames(source) if hasattr(source, "dtype") else source
    if not isinstance(frames, (list, tuple)):
        raise MediaError(
            "video: expected a list of pictures, an array, a URL, a path or bytes, "
            f"found {type(source).__name__}"
        )
    _check_count(len(frames), limits)
    return LoadedVideo([open_image(frame, limits) for frame in frames], fps or DEFAULT_FPS)


def _array_frames(array: Any) -> list[Image]:
    from PIL import Image

    if str(array.dtype) != "uint8" or array.ndim != 4 or array.shape[3] != 3:
        raise MediaError(
            "video: expected uint8 [frames, height, width, 3], "
            f"found {array.dtype} {list(array.shape)}"
        )
    return [Image.fromarray(frame) for frame in array]


def _open_animation(source: bytes, limits: MediaLimits) -> LoadedAnimation:
    from PIL import Image

    if len(source) > limits.max_bytes:
        raise MediaTooLargeError(
            f"video: expected at most {limits.max_bytes} bytes, found {len(source)}"
        )
    open_image(source, limits)
    with decoding(), Image.open(io.BytesIO(source), formats=FORMATS) as image:
        frames = int(getattr(image, "n_frames", 1))
        _check_count(frames, limits)
        return LoadedAnimation(source, image.height, image.width, frames)


def _check_count(count: int, limits: MediaLimits) -> None:
    if count == 0:
        raise MediaError("video: expected one or more frames, found none")
    if count > limits.max_frames:
        raise MediaTooLargeError(
            f"video: expected at most {limits.max_frames} frames, found {count}"
        )

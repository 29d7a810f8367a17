# SPDX-License-Identifier: Apache-2.0
"""What preprocessing hands to the engine."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from manymind.errors import InvalidParameterError, MediaError
from manymind.vision.rgb import RgbImage

FloatArray: TypeAlias = npt.NDArray[np.float32]
IndexArray: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """Rows of a matrix summed with weights: out[i] = sum over j of weights[i, j] * in[rows[i, j]].

    Attributes:
        rows: int32 [n, k].
        weights: float32 [n, k]; None = the single row itself, k = 1.
    """

    rows: IndexArray
    weights: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class EncoderInput:
    """What the encoder turns into one run of token embeddings: a picture, a tile of one or a slice
    of a video.

    Attributes:
        pixels: float32 [rows, patch_dim]: normalised patches, each flattened as [channel, (frame,)
            y, x].
        num_tokens: embeddings that come out.
        segments: int32: rows of each group that attends to itself, in order; they add up to rows.
        windows: the same for the layers with window attention; None for encoders without.
        positions: int32 [2, rows]: y and x of each patch, for encoders with rotary positions.
        table: rows of the learned position table to add to each patch; None for encoders without.
        merge: int32 [merged]: order in which patches enter the projector, neighbours that it
            joins side by side; None = as they are.
        output: which projected rows make up the tokens; the row after the last is the newline
            embedding. None = as they are.
        digest: 32 bytes that stand for the content: equal only for equal inputs of one model.
    """

    pixels: FloatArray
    num_tokens: int
    segments: IndexArray
    digest: bytes
    windows: IndexArray | None = None
    positions: IndexArray | None = None
    table: WeightedRows | None = None
    merge: IndexArray | None = None
    output: WeightedRows | None = None


@dataclass(frozen=True, eq=False)
class PreparedMedia:
    """A picture, or a video, ready for the encoder.

    Attributes:
        inputs: in the order in which their tokens stand in the prompt.
        grid: what a prompt must know of the layout: (rows, columns) of tiles, or (frames, y, x) of
            patches.
        seconds: of a video: time of the middle of each of its slices; empty for a picture.
        seconds_per_slice: of a video: between its slices.
        duration: of a video: seconds.
    """

    inputs: tuple[EncoderInput, ...]
    grid: tuple[int, ...]
    seconds: tuple[float, ...] = ()
    seconds_per_slice: float = 0.0
    duration: float = 0.0

    @property
    def num_tokens(self) -> int:
        """Embeddings of all inputs together."""
        return sum(item.num_tokens for item in self.inputs)


class Preprocessor(ABC):
    """The rules of one model, from its preprocessor_config.json.

    What not every family does is refused here, or is what the others do, until a family overrides
    it.
    """

    @abstractmethod
    def image(self, image: RgbImage) -> PreparedMedia:
        """A picture, uint8 [height, width, 3]. Raises MediaError if the rules refuse its
        shape."""

    @abstractmethod
    def rows(self, height: int, width: int) -> int:
        """Patches that a picture of this size becomes: what it costs the encoder, before it is
        decoded."""

    def one_of_several(self, image: RgbImage) -> PreparedMedia:
        """A picture that is not alone in its prompt."""
        return self.image(image)

    def with_pan_and_scan(self, enabled: bool) -> Preprocessor:
        """The same rules with pan and scan switched on or off.

        Raises InvalidParameterError for rules without it.
        """
        expected = "None for a model without it"
        raise InvalidParameterError(f"pan_and_scan: expected {expected}, found {enabled}")

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Frames of equal size, taken ``fps`` per second; the model's rules may show some of them
        only. Raises MediaError, for any video where the model takes none."""
        raise MediaError("video: this model takes none")

    def video_rows(self, count: int, height: int, width: int, fps: float | None) -> int:
        """Patches that ``count`` frames of this size become, before they are decoded; the most of
        any rate where ``fps`` is None: that of an animation shows only then. Raises MediaError
        where the model takes no videos."""
        raise MediaError("video: this model takes none")


def content_digest(kind: str, *parts: Any) -> bytes:
    """32 bytes over pixels (uint8 arrays, with their shapes) and plain values.

    BLAKE2b: no two different pictures are known to share a digest, and hashlib releases the GIL.
    """
    state = hashlib.blake2b(kind.encode(), digest_size=32)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).data)
        else:
            state.update(repr(part).encode())
    return state.digest()


def whole_segment(rows: int) -> IndexArray:
    """All rows attend to all."""
    return np.array([rows], np.int32)

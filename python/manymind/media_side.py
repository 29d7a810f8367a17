# SPDX-License-Identifier: Apache-2.0
"""From what users send as pictures to what the engine reads: loading, preprocessing, and the
memory that may take.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, TypeAlias

from manymind.errors import InvalidParameterError, MediaError, MediaTooLargeError, QueueFullError
from manymind.lmdeploy_fields import VISION, takes_neutral
from manymind.media import LoadedImage, MediaLimits, fetch_media, is_web_url, open_image
from manymind.media_input import PreparedItem, PromptTokens, assemble
from manymind.media_video import LoadedAnimation, LoadedVideo, open_video, shown_fps
from manymind.prompts import MediaSource
from manymind.validation import require_int, require_type

if TYPE_CHECKING:
    from PIL.Image import Image

    from manymind.models.vision_family import VisionSource
    from manymind.tokenizer import Segment, Tokenizer
    from manymind.vision.rgb import RgbImage
    from manymind.vision.types import PreparedMedia

_FETCHES_AT_ONCE = 8  # of one request


@takes_neutral(VISION)
@dataclass(frozen=True)
class VisionConfig:
    """How pictures are taken in. LMDeploy's fields are taken at the value that changes nothing.

    Attributes:
        max_patches: most patches of one picture or tile, and of one engine step; 0 = as the memory
            plan says.
        embedding_cache_bytes: device memory that keeps embeddings by content; 0 = auto.
        prepared_cache_bytes: host memory that keeps preprocessed pictures by content.
        max_pending_bytes, max_pending_pixels, max_pending_patches: what the pictures of all
            requests that have not ended may add up to: encoded, decoded and preprocessed.
        num_threads: that decode and preprocess; 0 = all cores.
        pan_and_scan: crops of a long picture follow the whole (Gemma 3); None = as the checkpoint's
            preprocessor_config.json says.
        limits: what a picture may be and where it may come from; None = MediaLimits() for
            pipelines, the same without local files for servers.
    """

    max_patches: int = 0
    embedding_cache_bytes: int = 0
    prepared_cache_bytes: int = 256 << 20
    max_pending_bytes: int = 1 << 30
    max_pending_pixels: int = 1 << 29
    max_pending_patches: int = 1 << 20
    num_threads: int = 0
    pan_and_scan: bool | None = None
    limits: MediaLimits | None = None

    def __post_init__(self) -> None:
        for name in ("max_patches", "num_threads"):
            require_int(name, getattr(self, name), 0)
        for name in ("embedding_cache_bytes", "prepared_cache_bytes"):
            require_int(name, getattr(self, name), 0, 1 << 48)
        for name in ("max_pending_bytes", "max_pending_pixels", "max_pending_patches"):
            require_int(name, getattr(self, name), 1, 1 << 48)
        require_type("pan_and_scan", self.pan_and_scan, (bool, NoneType))


@dataclass(frozen=True)
class Charge:
    """What the pictures of a request cost."""

    bytes: int = 0
    pixels: int = 0
    patches: int = 0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.bytes + other.bytes, self.pixels + other.pixels, self.patches + other.patches
        )

    def __neg__(self) -> Charge:
        return Charge(-self.bytes, -self.pixels, -self.patches)

    def within(self, limit: Charge) -> bool:
        """Whether no part exceeds the limit's."""
        return (
            self.bytes <= limit.bytes
            and self.pixels <= limit.pixels
            and self.patches <= limit.patches
        )


class MediaBudget:
    """What the pictures of all unfinished requests may add up to. Thread-safe."""

    def __init__(self, limit: Charge) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._taken = Charge()

    def take(self, charge: Charge, taken_before: Charge = Charge()) -> None:
        """For a request that has taken a part of its charge before. Raises MediaTooLargeError for
        what never fits, QueueFullError for what does not yet.
        """
        if not charge.within(self._limit):
            raise MediaTooLargeError(
                f"media: expected at most {self._limit} for one request, found {charge}"
            )
        with self._lock:
            taken = self._taken + charge + -taken_before
            if not taken.within(self._limit):
                raise QueueFullError(
                    f"media: the pictures of running requests leave no room for {charge}"
                )
            self._taken = taken

    def give_back(self, charge: Charge) -> None:
        with self._lock:
            self._taken += -charge

    @property
    def taken(self) -> Charge:
        """By requests that have not ended."""
        return self._taken


PictureKey: TypeAlias = "tuple[bytes, bool, str]"  # digest, whether alone in its prompt, salt


class _Account:
    """What one request has taken of a budget. Thread-safe."""

    def __init__(self, budget: MediaBudget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._taken = Charge()

    def take_bytes(self, count: int) -> None:
        """Adds bytes; raises as ``take``."""
        with self._lock:
            self._raise_to(self._taken + Charge(count))

    def raise_to(self, total: Charge) -> None:
        """Takes what is lacking of ``total``. Raises as ``MediaBudget.take``."""
        with self._lock:
            self._raise_to(total)

    def _raise_to(self, total: Charge) -> None:
        self._budget.take(total, self._taken)
        self._taken = total

    def give_back(self) -> None:
        """All of it."""
        with self._lock:
            self._budget.give_back(self._taken)
            self._taken = Charge()


class PreparedCache:
    """Preprocessed pictures by content and salt; the least recently used go first. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        """capacity: bytes of pixels."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[PictureKey, PreparedMedia] = OrderedDict()
        self._bytes = 0
        self._queries = self._hits = 0

    @property
    def queries_and_hits(self) -> tuple[int, int]:
        """Pictures looked up so far, and those of them that were found."""
        with self._lock:
            return self._queries, self._hits

    def get(self, key: PictureKey) -> PreparedMedia | None:
        with self._lock:
            media = self._entries.get(key)
            self._queries += 1
            if media is not None:
                self._hits += 1
                self._entries.move_to_end(key)
            return media

    def put(self, key: PictureKey, media: PreparedMedia) -> None:
        size = _pixel_bytes(media)
        with self._lock:
            if key in self._entries or size > self._capacity:
                return
            self._entries[key] = media
            self._bytes += size
            while self._bytes > self._capacity:
                self._bytes -= _pixel_bytes(self._entries.popitem(last=False)[1])


class MediaSide:
    """Prepares the pictures of one model's prompts. Thread-safe."""

    def __init__(self, vision: VisionSource, config: VisionConfig, limits: MediaLimits) -> None:
        self.prompt = vision.prompt
        self.limits = limits
        self._rules = vision.preprocessor
        if config.pan_and_scan is not None:
            self._rules = self._rules.with_pan_and_scan(config.pan_and_scan)
        self.budget = MediaBudget(
            Charge(config.max_pending_bytes, config.max_pending_pixels, config.max_pending_patches)
        )
        self.prepared = PreparedCache(config.prepared_cache_bytes)
        threads = config.num_threads or os.cpu_count() or 1
        self._workers = ThreadPoolExecutor(threads, "manymind-media")

    def encode(
        self,
        segments: Sequence[Segment],
        sources: Sequence[MediaSource],
        tokenizer: Tokenizer,
        salt: str = "",
    ) -> PromptTokens:
        """Token ids of a rendered prompt, and its pictures.

        Those behind web addresses are fetched first, side by side and within the time of the
        limits. All pictures are measured, and charged to the budget, before any is decoded, and
        what is fetched as it comes; the charge ends with the PromptTokens. Pictures prepared under
        another ``salt`` are not reused. Raises MediaError and its kinds, QueueFullError.
        """
        account = _Account(self.budget)
        try:
            sources = self._fetched(sources, account)
            opened = [self._open(source) for source in sources]
            measured = zip(sources, opened, strict=True)
            account.raise_to(sum((self._charge(*each) for each in measured), Charge()))
            alone = sum(source.kind == "image" for source in sources) == 1
            pending = [
                self._workers.submit(self._prepare, source, found, alone, salt)
                for source, found in zip(sources, opened, strict=True)
            ]
            items = [job.result() for job in pending]
            ids, media = assemble(segments, items, self.prompt, tokenizer)
        except BaseException:
            account.give_back()
            raise
        prompt = PromptTokens(ids, media)
        weakref.finalize(prompt, account.give_back)
        return prompt

    def close(self) -> None:
        """Ends the threads."""
        self._workers.shutdown(cancel_futures=True)

    def _fetched(self, sources: Sequence[MediaSource], account: _Account) -> Sequence[MediaSource]:
        """The sources, with bytes instead of web addresses."""
        count = sum(is_web_url(source.data) for source in sources)
        if count == 0:
            return sources
        deadline = time.monotonic() + self.limits.timeout

        def fetched(source: MediaSource) -> MediaSource:
            if not is_web_url(source.data):
                return source
            with _located(source):
                data = fetch_media(source.data, self.limits, deadline, account.take_bytes)
            return replace(source, data=data)

        with ThreadPoolExecutor(min(count, _FETCHES_AT_ONCE), "manymind-fetch") as threads:
            return list(threads.map(fetched, sources))

    def _open(self, source: MediaSource) -> LoadedImage | LoadedVideo:
        with _located(source):
            if source.kind == "image":
                return open_image(source.data, self.limits)
            if self.prompt.expand_video is None:
                raise InvalidParameterError(f"{source.where}: this model takes no videos")
            return open_video(source.data, source.fps, self.limits)

    def _charge(self, source: MediaSource, opened: LoadedImage | LoadedVideo) -> Charge:
        with _located(source):
            if isinstance(opened, LoadedVideo):
                return self._video_charge(opened)
            # EXIF data, read when it is decoded, may turn it, and not all rules treat sides alike.
            height, width = opened.height, opened.width
            rows = max(self._rules.rows(height, width), self._rules.rows(width, height))
            return Charge(_source_bytes(opened), opened.height * opened.width, rows)

    def _video_charge(self, video: LoadedVideo) -> Charge:
        frames = video.frames
        size = sum(map(_source_bytes, frames))
        pixels = sum(frame.count * frame.height * frame.width for frame in frames)
        count = sum(frame.count for frame in frames)
        rows = self._rules.video_rows(count, frames[0].height, frames[0].width, video.fps or None)
        return Charge(size, pixels, rows)

    def _prepare(
        self, source: MediaSource, opened: LoadedImage | LoadedVideo, alone: bool, salt: str
    ) -> PreparedItem:
        with _located(source):
            if isinstance(opened, LoadedImage):
                return self._prepare_image(opened, alone, salt)
            shown = [frame for image in opened.frames for frame in image.decode_all()]
            fps = opened.fps or shown_fps(shown)
            return PreparedItem(self._rules.video(_rgb(shown), fps), is_video=True)

    def _prepare_image(self, image: LoadedImage, alone: bool, salt: str) -> PreparedItem:
        alone = alone or not self.prompt.alone_differs
        rules = self._rules.image if alone else self._rules.one_of_several
        if image.digest is None:
            return PreparedItem(rules(*_rgb([image.decode()])))
        key = (image.digest, alone, salt)
        media = self.prepared.get(key)
        if media is None:
            media = rules(*_rgb([image.decode()]))
            self.prepared.put(key, media)
        return PreparedItem(media)


@contextmanager
def _located(source: MediaSource) -> Iterator[None]:
    """Errors of a picture name the part of the prompt that it is."""
    try:
        yield
    except MediaError as error:
        raise type(error)(f"{source.where}: {error}") from error


def _rgb(images: Sequence[Image]) -> list[RgbImage]:
    from manymind.media import decoding
    from manymind.vision.rgb import to_rgb

    with decoding():
        return [to_rgb(image) for image in images]


def _source_bytes(image: LoadedImage | LoadedAnimation) -> int:
    return len(image.source) if isinstance(image.source, bytes) else 0


def _pixel_bytes(media: PreparedMedia) -> int:
    return sum(item.pixels.nbytes for item in media.inputs)

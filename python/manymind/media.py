# SPDX-License-Identifier: Apache-2.0
"""Pictures from files, data URLs, http(s) URLs and bytes, within limits."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from manymind.errors import MediaAccessError, MediaError, MediaTooLargeError
from manymind.validation import require, require_bool, require_int, require_number

if TYPE_CHECKING:
    from PIL.Image import Image

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image"

# Decoders of untrusted bytes: the common formats only; pillow's other plug-ins start programs
# (EPS) or are rarely fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class MediaLimits:
    """What a picture may be and where it may come from.

    Attributes:
        max_bytes: of an encoded picture.
        max_pixels: of a decoded picture; checked before it is decoded.
        max_frames: of a video.
        timeout: seconds to fetch all of a prompt's.
        allow_urls: fetch http(s) URLs.
        allow_private_addresses: also from addresses that are not public.
        allow_files: read any local file; a folder (str or Path) allows what lies below it.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000
    max_frames: int = 768
    timeout: float = 20.0
    allow_urls: bool = True
    allow_private_addresses: bool = False
    allow_files: bool | str | os.PathLike[str] = True

    def __post_init__(self) -> None:
        require_int("max_bytes", self.max_bytes, 1, 1 << 40)
        require_int("max_pixels", self.max_pixels, 1, 1 << 40)
        require_int("max_frames", self.max_frames, 1, 1 << 20)
        require_number("timeout", self.timeout, 1e-3, 1e6)
        require_bool("allow_urls", self.allow_urls)
        require_bool("allow_private_addresses", self.allow_private_addresses)
        valid = isinstance(self.allow_files, (bool, str, os.PathLike))
        require(valid, "allow_files", "a bool or a folder", self.allow_files)


DEFAULT_LIMITS = MediaLimits()


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A picture whose size is known, not decoded yet.

    Attributes:
        height, width: as stored, before a rotation that its EXIF data asks for.
        digest: of the encoded bytes; None for a picture that was decoded elsewhere.
    """

    source: bytes | Image
    height: int
    width: int
    digest: bytes | None
    count: int = 1  # of its frames

    def decode_all(self) -> list[Image]:
        """The picture as the only frame."""
        return [self.decode()]

    def decode(self) -> Image:
        """The picture, upright. Raises MediaError if it is damaged."""
        if isinstance(self.source, bytes):
            with _opened(self.source) as image, decoding():
                image.load()
                return _upright(image)
        with decoding():
            return _upright(self.source)


def load_image(source: ImageSource, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
    """A picture as a PIL image, upright as its EXIF data says.

    source: an http(s), data: or file: URL, a path, the encoded bytes, or a PIL image.
    Raises MediaAccessError for what ``limits`` do not allow, MediaTooLargeError, MediaFetchError,
    MediaError for what is not a picture or is damaged.
    """
    return open_image(source, limits).decode()


def open_image(source: ImageSource, limits: MediaLimits = DEFAULT_LIMITS) -> LoadedImage:
    """As ``load_image``, but only reads the header: nothing large is allocated."""
    if isinstance(source, (str, os.PathLike)):
        source = read_bytes(source, limits)
    if isinstance(source, bytes):
        if len(source) > limits.max_bytes:
            raise _too_large("bytes", limits.max_bytes, len(source))
        with _opened(source) as image:
            width, height = image.size
        digest = hashlib.blake2b(source, digest_size=32).digest()
        loaded = LoadedImage(source, height, width, digest)
    elif _is_pil_image(source):
        loaded = LoadedImage(source, source.height, source.width, None)
    else:
        raise MediaError(
            f"image: expected a URL, a path, bytes or a PIL image, found {type(source).__name__}"
        )
    if loaded.height * loaded.width > limits.max_pixels:
        raise _too_large("pixels", limits.max_pixels, f"{loaded.width} x {loaded.height}")
    if loaded.height * loaded.width == 0:
        raise MediaError("image: expected at least one pixel, found none")
    return loaded


def read_bytes(source: str | os.PathLike[str], limits: MediaLimits) -> bytes:
    """The bytes that a URL or a path stands for."""
    if isinstance(source, str):
        if is_web_url(source):
            return fetch_media(source, limits)
        scheme = source[:8].lower()
        if scheme.startswith("data:"):
            return _data_url(source, limits)
        if scheme.startswith("file:"):
            parts = urllib.parse.urlsplit(source)
            if parts.netloc not in ("", "localhost"):
                raise MediaAccessError("file URL: expected one without a host")
            source = urllib.parse.unquote(parts.path)
        elif "://" in source:
            other = source.partition("://")[0][:20]
            raise MediaError(f"media URL: expected http, https, data or file, found {other!r}")
    return _read_file(source, limits)


def is_web_url(source: object) -> bool:
    """Whether a picture or a video has to be fetched."""
    return isinstance(source, str) and source[:8].lower().startswith(("http:", "https:"))


def fetch_media(
    url: str,
    limits: MediaLimits,
    deadline: float | None = None,
    account: Callable[[int], None] | None = None,
) -> bytes:
    """The bytes behind an http(s) URL; see ``UrlFetcher.fetch``."""
    from manymind.media_fetch import UrlFetcher

    if not limits.allow_urls:
        raise MediaAccessError("media URL: fetching is not allowed here")
    fetcher = UrlFetcher(limits.max_bytes, limits.timeout, limits.allow_private_addresses)
    return fetcher.fetch(url, deadline, account)


def _data_url(url: str, limits: MediaLimits) -> bytes:
    header, comma, data = url.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise MediaError("data URL: expected data:<type>;base64,<data>")
    if len(data) // 4 * 3 > limits.max_bytes + 3:
        raise _too_large("bytes", limits.max_bytes, f"about {len(data) // 4 * 3}")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"data URL: expected base64: {error}") from error


def _read_file(source: str | os.PathLike[str], limits: MediaLimits) -> bytes:
    if limits.allow_files is False:
        raise MediaAccessError("media file: reading local files is not allowed here")
    try:
        path = Path(source).resolve(strict=True)
        if limits.allow_files is not True:
            root = Path(limits.allow_files).resolve()
            if not path.is_relative_to(root):
                raise MediaAccessError(f"media file: expected one below {root}")
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"image: expected a readable file or a URL: {error}") from error
    if len(data) > limits.max_bytes:
        raise _too_large("bytes", limits.max_bytes, "more")
    return data


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    from PIL import Image

    with decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder throws at damaged or hostile bytes becomes a MediaError."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise MediaError(f"image: expected one of {known}, found other data") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaTooLargeError(f"image: {error}") from error
    except MemoryError as error:
        raise MediaTooLargeError("image: out of memory while decoding") from error
    except Exception as error:
        raise MediaError(f"image: damaged or truncated: {error}") from error


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    upright: Image = ImageOps.exif_transpose(image)
    return upright


def _is_pil_image(value: object) -> bool:
    # A PIL image can only exist once its module was imported.
    import sys

    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _too_large(what: str, limit: int, found: object) -> MediaTooLargeError:
    return MediaTooLargeError(f"image: expected at most {limit} {what}, found {found}")

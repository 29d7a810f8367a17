# SPDX-License-Identifier: Apache-2.0
"""Loading pictures: every source, limits, damaged and hostile data."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, of_every_mode, rgb
from PIL import Image

from manymind.errors import MediaAccessError, MediaError, MediaTooLargeError
from manymind.media import MediaLimits, load_image, open_image
from manymind.vision.rgb import to_rgb


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size; its pixels are ``data``, compressed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    data = encoded(rgb(20, 30), "PNG")
    path = tmp_path / "picture with spaces.png"
    path.write_bytes(data)
    expected = np.asarray(rgb(20, 30))
    for source in (
        data,
        path,
        str(path),
        path.as_uri(),
        "data:image/png;base64," + base64.b64encode(data).decode(),
        Image.open(path),
    ):
        np.testing.assert_array_equal(np.asarray(load_image(source)), expected)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_formats(format_name: str) -> None:
    image = load_image(encoded(rgb(20, 30), format_name))
    assert image.size == (30, 20)


@pytest.mark.parametrize("mode", of_every_mode())
def test_any_mode_becomes_rgb(mode: str) -> None:
    picture = to_rgb(of_every_mode()[mode])
    assert picture.shape == (45, 61, 3)
    assert picture.dtype == np.uint8


def test_what_is_transparent_shows_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert to_rgb(image).tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int) -> None:
    """The turns and flips that the EXIF specification (CIPA DC-008, tag 0x0112) defines."""
    upright = np.asarray(rgb(12, 20))
    inverse = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(inverse[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load_image(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(found), upright)


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format_name in ("GIF", "WEBP", "PNG"):
        options = {"save_all": True, "append_images": frames[1:], "lossless": True}
        red = to_rgb(load_image(encoded(frames[0], format_name, **options)))
        assert red[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0" + b"\x00" * 40,
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError, match="image:"):
        load_image(data)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_picture_is_refused(format_name: str) -> None:
    data = encoded(rgb(100, 100), format_name)
    for length in range(0, len(data) - len(data) // 8, max(1, len(data) // 23)):
        with pytest.raises(MediaError):
            load_image(data[:length])


def test_damaged_bytes_never_raise_anything_else() -> None:
    generator = np.random.default_rng(5)
    for format_name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = bytearray(encoded(rgb(40, 40), format_name))
        for _ in range(60):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 5):
                damaged[place] = generator.integers(0, 256)
            try:
                to_rgb(load_image(bytes(damaged)))
            except MediaError:
                continue


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    for width, height in ((30000, 30000), (60000, 60000), (1 << 30, 1 << 30)):
        with pytest.raises(MediaTooLargeError):
            open_image(png(width, height))


def test_limits(tmp_path: Path) -> None:
    data = encoded(rgb(20, 30), "PNG")
    assert load_image(data, MediaLimits(max_pixels=600)).size == (30, 20)
    with pytest.raises(MediaTooLargeError, match=r"599 pixels, found 30 x 20"):
        load_image(data, MediaLimits(max_pixels=599))
    with pytest.raises(MediaTooLargeError, match="pixels"):
        load_image(rgb(20, 30), MediaLimits(max_pixels=599))
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (data, path, url):
        with pytest.raises(MediaTooLargeError, match="bytes"):
            load_image(source, MediaLimits(max_bytes=len(data) - 4))


def test_files_can_be_kept_inside_a_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "media", tmp_path / "secret.png"
    inside.mkdir()
    outside.write_bytes(encoded(rgb(4, 4), "PNG"))
    (inside / "picture.png").write_bytes(encoded(rgb(4, 4), "PNG"))
    (inside / "link.png").symlink_to(outside)
    limits = MediaLimits(allow_files=inside)
    assert load_image(inside / "picture.png", limits).size == (4, 4)
    for path in (outside, inside / ".." / "secret.png", inside / "link.png", outside.as_uri()):
        with pytest.raises(MediaAccessError):
            load_image(path, limits)
    with pytest.raises(MediaAccessError):
        load_image(inside / "picture.png", MediaLimits(allow_files=False))
    with pytest.raises(MediaAccessError):
        load_image("file://elsewhere/picture.png")


@pytest.mark.parametrize(
    "url", ["data:image/png;base64", "data:image/png,abc", "data:image/png;base64,?"]
)
def test_broken_data_urls(url: str) -> None:
    with pytest.raises(MediaError, match="data URL"):
        load_image(url)


def test_other_objects_are_refused() -> None:
    with pytest.raises(MediaError, match="found int"):
        load_image(5)  # type: ignore[arg-type]
    with pytest.raises(MediaError, match="readable file"):
        load_image("no/such/file.png")
    with pytest.raises(MediaError):
        load_image("with\0null.png")


def test_equal_bytes_have_an_equal_digest() -> None:
    first, second = encoded(rgb(8, 8), "PNG"), encoded(rgb(8, 8, 1), "PNG")
    assert open_image(first).digest == open_image(bytes(bytearray(first))).digest
    assert open_image(first).digest != open_image(second).digest
    assert open_image(rgb(8, 8)).digest is None

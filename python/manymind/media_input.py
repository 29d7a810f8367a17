# SPDX-License-Identifier: Apache-2.0
"""Prompts with pictures: text and prepared media become token ids and what the engine puts in place
of some of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from manymind.errors import MediaError

if TYPE_CHECKING:
    from manymind.models.media_prompt import MediaPrompt, MediaSpan
    from manymind.tokenizer import Segment, Tokenizer
    from manymind.vision.types import EncoderInput, IndexArray, PreparedMedia


@dataclass(frozen=True, eq=False)
class InputSpan:
    """The placeholders from token ``begin`` on are those of ``item``."""

    begin: int
    item: EncoderInput


@dataclass(frozen=True, eq=False)
class MediaInput:
    """What goes to the engine beside token ids.

    Attributes:
        spans: in order.
        positions: int32 [3, tokens], for decoders with positions on three axes.
    """

    spans: tuple[InputSpan, ...]
    positions: IndexArray | None


def salted(media: MediaInput, salt: str) -> MediaInput:
    """The same media under digests that only those with the same salt have, so that the engine's
    caches by content tell nobody else that they were seen before; "" leaves them as they are.
    """
    if not salt:
        return media
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()

    def own(item: EncoderInput) -> EncoderInput:
        digest = hashlib.blake2b(item.digest, key=key, digest_size=32).digest()
        return replace(item, digest=digest)

    spans = tuple(InputSpan(span.begin, own(span.item)) for span in media.spans)
    return MediaInput(spans, media.positions)


class PromptTokens(list[int]):
    """Token ids with the pictures that some of them stand for."""

    def __init__(self, ids: Sequence[int], media: MediaInput) -> None:
        super().__init__(ids)
        self.media = media


@dataclass(frozen=True)
class PreparedItem:
    """A picture or a video of a prompt."""

    media: PreparedMedia
    is_video: bool = False


def assemble(
    segments: Sequence[Segment],
    items: Sequence[PreparedItem],
    prompt: MediaPrompt,
    tokenizer: Tokenizer,
) -> tuple[list[int], MediaInput]:
    """Token ids of a rendered prompt and where its pictures stand.

    segments: as ``ChatTemplate.render_segments`` gives them. Only placeholders that the template
    wrote count: a user who writes one gets its letters. Raises MediaError unless there is one
    placeholder for each item, of its kind.
    """
    expanded = _expand(segments, items, prompt)
    ids = tokenizer.encode_segments(expanded)
    spans = tuple(_find_spans(ids, items, prompt, tokenizer))
    positions = None
    if prompt.axes is not None:
        from manymind.models.media_prompt import axis_positions

        positions = axis_positions(len(ids), list(_grids(spans, items)), prompt.axes)
    return ids, MediaInput(spans, positions)


def _expand(
    segments: Sequence[Segment], items: Sequence[PreparedItem], prompt: MediaPrompt
) -> list[Segment]:
    tokens = [token for token in (prompt.video_token, prompt.image_token) if token]
    pattern = re.compile("|".join(map(re.escape, tokens)))
    waiting = list(items)
    found = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal found
        found += 1
        if not waiting:
            return ""  # counted; the prompt is refused below
        item = waiting.pop(0)
        is_video = match.group() == prompt.video_token
        if item.is_video != is_video:
            kinds = ("a picture", "a video")
            raise MediaError(
                f"media: expected {kinds[is_video]} at placeholder {found}, "
                f"found {kinds[item.is_video]}"
            )
        if is_video and prompt.expand_video is not None:
            return prompt.expand_video(item.media)
        return prompt.expand_image(item.media)

    expanded = [
        (pattern.sub(replace, text) if special else text, special) for text, special in segments
    ]
    if found != len(items):
        raise MediaError(
            f"media: expected a placeholder for each of {len(items)} pictures and videos, "
            f"found {found}"
        )
    return expanded


def _find_spans(
    ids: Sequence[int],
    items: Sequence[PreparedItem],
    prompt: MediaPrompt,
    tokenizer: Tokenizer,
) -> Iterator[InputSpan]:
    fill = {tokenizer.token_to_id(token) for token in prompt.fill_tokens}
    places = [index for index, token in enumerate(ids) if token in fill]
    expected = sum(item.media.num_tokens for item in items)
    if len(places) != expected:
        raise MediaError(
            f"media: expected {expected} placeholder tokens in the prompt, found {len(places)}"
        )
    start = 0
    for item in items:
        for part in item.media.inputs:
            begin, end = places[start], places[start + part.num_tokens - 1]
            if end - begin + 1 != part.num_tokens:
                raise MediaError("media: expected the placeholders of a picture side by side")
            yield InputSpan(begin, part)
            start += part.num_tokens


def _grids(spans: Sequence[InputSpan], items: Sequence[PreparedItem]) -> Iterator[MediaSpan]:
    from manymind.models.media_prompt import MediaSpan

    remaining = iter(spans)
    for item in items:
        frames, height, width = item.media.grid
        frames //= len(item.media.inputs)
        for part in item.media.inputs:
            span, between = next(remaining), item.media.seconds_per_slice
            yield MediaSpan(span.begin, part.num_tokens, (frames, height, width), between)

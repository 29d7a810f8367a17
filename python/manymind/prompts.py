# SPDX-License-Identifier: Apache-2.0
"""The forms a prompt may have: str, OpenAI messages, or lists of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from manymind.errors import InvalidParameterError
from manymind.media import is_web_url
from manymind.validation import require

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | tuple[Any, Any] | Sequence[Message]"


@dataclass(frozen=True)
class MediaSource:
    """A picture or a video as a user gave it.

    Attributes:
        kind: "image" or "video".
        data: anything ``load_image`` takes, or ``open_video``.
        fps: of a video's frames; 0 = as its file says.
        where: the part of the prompt that it was, for errors.
    """

    kind: Literal["image", "video"]
    data: Any
    fps: float = 0.0
    where: str = "media"


_DETAILS = (None, "auto", "high")  # pictures are read in full
_ROLES = ("system", "user", "assistant", "tool", "developer")


def is_messages(value: object) -> bool:
    """True for a non-empty list of OpenAI messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and len(value) > 0
        and all(isinstance(item, Mapping) for item in value)
    )


def is_picture_prompt(value: object) -> bool:
    """True for a pair of a text and a picture, or of a text and a list of pictures, in either
    order; of two strings the first is the text.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    first, second = value
    # Else a tuple of two prompts.
    shown_first = isinstance(second, str) and not (is_messages(first) or is_picture_prompt(first))
    return isinstance(first, str) or shown_first


def split_prompts(prompts: object) -> tuple[list[Prompt], bool]:
    """One prompt or a list of prompts as a list, and whether it was a single one."""
    if isinstance(prompts, str) or is_messages(prompts) or is_picture_prompt(prompts):
        return [prompts], True  # type: ignore[list-item]
    if isinstance(prompts, Sequence) and not isinstance(prompts, bytes):
        for index, prompt in enumerate(prompts):
            if not (isinstance(prompt, str) or is_messages(prompt) or is_picture_prompt(prompt)):
                raise _unexpected(f"prompts[{index}]", prompt)
        return list(prompts), False
    raise _unexpected("prompts", prompts)


def as_messages(prompt: Prompt, system: str | None) -> list[dict[str, Any]]:
    """The prompt as text-only chat messages, with the default system message in front if it has
    none.
    """
    messages = [
        {**message, "content": _text_content(index, message.get("content"))}
        for index, message in enumerate(_messages(prompt))
    ]
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def as_media_messages(
    prompt: Prompt, system: str | None
) -> tuple[list[dict[str, Any]], list[MediaSource]]:
    """The prompt as messages whose contents are lists of texts and of marks for pictures and
    videos, as chat templates of models that see read them, and what the marks stand for."""
    sources: list[MediaSource] = []
    messages = [
        {**message, "content": _media_content(index, message.get("content"), sources)}
        for index, message in enumerate(_messages(prompt))
    ]
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": [_text_item(system)]})
    return messages, sources


def has_media(prompt: Prompt) -> bool:
    """Whether a prompt that ``split_prompts`` accepted may bring pictures or videos."""
    if isinstance(prompt, (str, tuple)):
        return not isinstance(prompt, str)
    contents = [message.get("content") for message in prompt]
    return any(
        isinstance(item, Mapping) and item.get("type") != "text"
        for content in contents
        if isinstance(content, (list, tuple))
        for item in content
    )


def web_media(prompt: Sequence[Message]) -> list[str]:
    """The addresses of pictures and videos that have to be fetched."""
    contents = [message.get("content") for message in prompt]
    values = (
        value.get("url") if isinstance(value, Mapping) else value
        for content in contents
        if isinstance(content, (list, tuple))
        for item in content
        if isinstance(item, Mapping) and item.get("type") != "text"
        for value in item.values()
    )
    return [value for value in values if isinstance(value, str) and is_web_url(value)]


def picture_content(text: str, pictures: Any) -> list[dict[str, Any]]:
    """Pictures before a text, as a message's content."""
    several = pictures if isinstance(pictures, (list, tuple)) else [pictures]
    return [*({"type": "image", "image": picture} for picture in several), _text_item(text)]


def _messages(prompt: Prompt) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, tuple):
        first, second = prompt
        in_order = (first, second) if isinstance(first, str) else (second, first)
        return [{"role": "user", "content": picture_content(*in_order)}]
    return [_checked(index, message) for index, message in enumerate(prompt)]


def _text_item(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _media_content(index: int, content: object, sources: list[MediaSource]) -> list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return [_text_item(content)] if content else []
    if not isinstance(content, Sequence):
        raise _unexpected(f"messages[{index}].content", content)
    items: list[dict[str, Any]] = []
    for place, item in enumerate(content):
        if isinstance(item, Mapping) and item.get("type") == "text":
            items.append(_text_item(str(item.get("text", ""))))
            continue
        source = _media_source(f"messages[{index}].content[{place}]", item)
        sources.append(source)
        items.append({"type": source.kind})
    return items


def _media_source(name: str, item: object) -> MediaSource:
    """OpenAI's "image_url", or "image" and "video" with what they are under the same key, or
    LMDeploy's "image_data". "where" names the item for errors, if it came in another form."""
    if isinstance(item, Mapping):
        name = str(item.get("where", name))
    kind = item.get("type") if isinstance(item, Mapping) else None
    value = item.get(kind) if isinstance(item, Mapping) and isinstance(kind, str) else None
    if kind in ("image_url", "video_url"):
        _check_options(f"{name}.{kind}", value)
    if kind == "image_url":
        url = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(url, str):
            return MediaSource("image", url, where=name)
    elif kind == "image_data" and isinstance(value, Mapping) and value.get("data") is not None:
        return MediaSource("image", value["data"], where=name)
    elif kind == "image" and value is not None:
        return MediaSource("image", value, where=name)
    elif kind == "video_url":
        url = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(url, str):
            return MediaSource("video", url, _fps(name, value), name)
    elif kind == "video" and value is not None:
        return MediaSource("video", value, _fps(name, item), name)
    raise InvalidParameterError(
        f"{name}: expected items of type text, image_url or video_url with a url, image or video, "
        f"found {kind!r}"
    )


def _check_options(name: str, options: object) -> None:
    """Raises InvalidParameterError for what a URL is given with that nothing here would heed."""
    if not isinstance(options, Mapping):
        return
    detail = options.get("detail")
    require(detail in _DETAILS, f"{name}.detail", "auto or high", detail)
    known = {"url", "detail"} | ({"fps"} if name.endswith("video_url") else set())
    unknown = sorted(str(key) for key in options.keys() - known if options[key] is not None)
    require(not unknown, name, f"the fields {', '.join(sorted(known))}", unknown)


def _fps(name: str, options: object) -> float:
    fps = options.get("fps", 0.0) if isinstance(options, Mapping) else 0.0
    valid = isinstance(fps, (int, float)) and not isinstance(fps, bool) and 0 <= fps <= 1000
    require(valid, f"{name}.fps", "frames per second, up to 1000", fps)
    return float(fps)


def _checked(index: int, message: Message) -> Message:
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidParameterError(
            f"messages[{index}].role: expected one of {', '.join(_ROLES)}, found {role!r}"
        )
    return message


def _text_content(index: int, content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise _unexpected(f"messages[{index}].content", content)
    texts: list[str] = []
    for item in content:
        if not isinstance(item, Mapping) or item.get("type") != "text":
            kind, name = item, f"messages[{index}].content"
            if isinstance(item, Mapping):
                kind, name = item.get("type"), str(item.get("where", name))
            raise InvalidParameterError(
                f"{name}: expected text items only, found {kind!r}; this model takes no other media"
            )
        texts.append(str(item.get("text", "")))
    return "".join(texts)


def _unexpected(name: str, value: object) -> InvalidParameterError:
    return InvalidParameterError(
        f"{name}: expected a str, a non-empty list of messages, or a list of those, "
        f"found {type(value).__name__}"
    )

# SPDX-License-Identifier: Apache-2.0
"""Every error manymind raises on purpose. All derive from ``ManymindError``.

A user's mistake, a bad file, a device error or an out-of-memory ends the request or the call that
caused it with one of these; the engine goes on serving.
"""

from __future__ import annotations

import os


class ManymindError(Exception):
    """Base class of all errors below."""


class CheckpointError(ManymindError):
    """A model file is corrupt, truncated, hostile or inconsistent with its own configuration.

    Attributes:
        field: the key, tensor or byte range at fault.
        expected: what a valid file would hold there.
        found: what this file holds.
        path: the file, or None while it is not known yet (see ``located``).
    """

    def __init__(
        self,
        field: str,
        expected: object,
        found: object,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(field, expected, found, path)
        self.field = field
        self.expected = expected
        self.found = found
        self.path = path

    def __str__(self) -> str:
        where = f"{os.fspath(self.path)}: " if self.path is not None else ""
        return f"{where}{self.field}: expected {self.expected}, found {_clip(self.found)}"

    def located(self, path: str | os.PathLike[str]) -> CheckpointError:
        """The same error naming ``path``, unless it names a file already."""
        if self.path is not None:
            return self
        return CheckpointError(self.field, self.expected, self.found, path)


class UnsupportedModelError(ManymindError):
    """The checkpoint is valid, but describes an architecture or option the engine does not
    implement."""


class UnsupportedFormatError(ManymindError):
    """The checkpoint is valid, but stored in a file or tensor format the engine does not read."""


class TokenizerError(ManymindError):
    """A tokenizer definition is corrupt, or of a kind that is not implemented."""


class ChatTemplateError(ManymindError):
    """A chat template does not parse, fails on these messages, or exceeds its limits."""


class InvalidParameterError(ManymindError, ValueError):
    """An argument or a configuration field has a value outside its domain."""


class PromptTooLongError(InvalidParameterError):
    """The prompt and the tokens to generate do not fit the context length of the session."""


class MediaError(InvalidParameterError):
    """A picture or video cannot be used: not one, damaged, of a shape the model refuses, or not
    matching the prompt's placeholders."""


class MediaTooLargeError(MediaError):
    """A picture or video exceeds a limit of bytes, pixels, frames or encoder rows."""


class MediaAccessError(MediaError):
    """A media reference is refused: scheme, private address or local file that is not allowed."""


class MediaFetchError(MediaError):
    """A media URL could not be fetched."""


class EngineError(ManymindError):
    """The engine failed to run a request, or is stopped."""


class OutOfMemoryError(EngineError):
    """Device or host memory does not suffice; the message says for what."""


class QueueFullError(EngineError):
    """The bounded request queue is full: retry later."""


class RequestCancelledError(EngineError):
    """The request was cancelled before it finished."""


class RequestTimeoutError(EngineError, TimeoutError):
    """The request did not end within its ``timeout``; the message names it."""


class BackendError(ManymindError):
    """No usable backend plug-in, or a plug-in reported a failure."""


class FetchError(ManymindError):
    """A model could not be downloaded, or its hash differs from the pinned one."""


def _clip(value: object, limit: int = 200) -> str:
    """``value`` as text of bounded length: a hostile file must not choose the size of our
    messages."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"

# SPDX-License-Identifier: Apache-2.0
"""What the chat interfaces have in common: a conversation goes in, one prompt's answers come out,
and each interface words them in its own way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from manymind.config import GenerationConfig, Response
from manymind.server.errors import ApiError
from manymind.server.messages import EventStream, json_response
from manymind.server.record import RequestRecord
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.responses import Response as HttpResponse


@dataclass(frozen=True)
class Dialogue:
    """A conversation to be answered.

    Attributes:
        messages: OpenAI's, as the template gets them.
        prefill: how the answer begins; the model goes on from there.
        add_generation_prompt: end the prompt with the header of the answer.
        variables: further ones of the template.
    """

    messages: Sequence[Mapping[str, Any]]
    prefill: str = ""
    add_generation_prompt: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)


class Wording(Protocol):
    """An interface's form of the answer to one request."""

    media_type: str  # of a stream

    def whole(self, answers: Sequence[Response]) -> Any:
        """The n complete answers, as JSON types."""

    def step(self, pieces: Sequence[Response]) -> bytes:
        """What a stream sends for one wake-up's pieces."""

    def end(self) -> bytes:
        """What it sends after the last."""

    def failure(self, error: ApiError) -> bytes:
        """What it sends instead, if the request failed."""


async def encode_dialogue(service: Service, record: RequestRecord, dialogue: Dialogue) -> list[int]:
    """The conversation's token ids."""

    def work() -> list[list[int]]:
        ids = service.runtime.encode_chat(
            dialogue.messages,
            prefill=dialogue.prefill,
            add_generation_prompt=dialogue.add_generation_prompt,
            **dialogue.variables,
        )
        return [ids]

    return (await service.encode(record, work))[0]


async def respond(
    service: Service,
    record: RequestRecord,
    prompt: Sequence[int],
    config: GenerationConfig,
    wording: Wording,
    stream: bool | None,
) -> HttpResponse:
    """Has the prompt answered, at once or as it comes."""
    await service.compile_grammar(record, config)
    if stream:
        chunks = _stream(service, record, prompt, config, wording)
        return EventStream(chunks, wording.failure, wording.media_type)
    with service.generate(record, [prompt], [config]) as generation:
        answers = (await generation.answers())[0]
    return json_response(wording.whole(answers))


async def _stream(
    service: Service,
    record: RequestRecord,
    prompt: Sequence[int],
    config: GenerationConfig,
    wording: Wording,
) -> AsyncIterator[bytes]:
    with service.generate(record, [prompt], [config]) as generation:
        while pieces := await generation.next():
            if chunk := wording.step(pieces):
                yield chunk
    yield wording.end()


def texts_of(content: str | list[Any] | None, where: str, kinds: Sequence[str]) -> str:
    """The text of a message's content: a string, or parts of the given kinds with a ``text``.

    Raises ApiError 400 for other parts.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        if part.type not in kinds or part.text is None:
            message = f"{where}: this model takes text only, found a part of type {part.type!r}"
            raise ApiError(400, message, "unsupported_content", where)
        texts.append(part.text)
    return "".join(texts)

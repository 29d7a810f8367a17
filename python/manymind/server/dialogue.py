# SPDX-License-Identifier: Apache-2.0
"""What the chat interfaces have in common: a conversation goes in, one prompt's answers come out,
and each interface words them in its own way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from manymind.config import GenerationConfig, Response
from manymind.guided import is_constrained
from manymind.output_text import PieceDecoder, TokenPlaces
from manymind.parsers import (
    Event,
    OutputParser,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    joined,
)
from manymind.server.errors import ApiError, missing_value
from manymind.server.messages import EventStream, json_response
from manymind.server.record import RequestRecord
from manymind.server.service import Service
from manymind.server.thinking import thinking_variables
from manymind.server.tools import Toolset

if TYPE_CHECKING:
    from starlette.responses import Response as HttpResponse

_LAST_TOKENS = 32
_MANY_TOKENS = 2048


@dataclass(frozen=True)
class Dialogue:
    """A conversation to be answered.

    Attributes:
        messages: OpenAI's, as the template gets them.
        prefill: how the answer begins; the model goes on from there.
        add_generation_prompt: end the prompt with the header of the answer.
        variables: further ones of the template.
        thinking: how much the model is to think, see ``thinking_variables``, and which parameter
            says so.
        tools: what the model may call.
        cache_salt: as ``GenerationConfig``'s, for the pictures.
    """

    messages: Sequence[Mapping[str, Any]]
    prefill: str = ""
    add_generation_prompt: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Toolset = field(default_factory=Toolset)
    thinking: tuple[bool | str | None, str] = (None, "")
    cache_salt: str = ""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer, and what its text means: text, reasoning, calls.

    Attributes:
        called: the answer, so far, has called a tool.
        reasoning_tokens: of the answer's tokens, so far, those of reasoning.
    """

    piece: Response
    events: Sequence[Event]
    called: bool
    reasoning_tokens: int = 0

    @property
    def text(self) -> str:
        """What the user is to read."""
        return "".join(item.text for item in self.events if isinstance(item, TextDelta))

    @property
    def reasoning(self) -> str:
        """What the model thought."""
        return "".join(item.text for item in self.events if isinstance(item, ReasoningDelta))

    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each call, for a delta that is a whole answer."""
        calls: list[tuple[str, str]] = []
        for item in self.events:
            if isinstance(item, ToolCallStart):
                calls.append((item.name, ""))
            elif isinstance(item, ToolCallDelta):
                name, arguments = calls[-1]
                calls[-1] = (name, arguments + item.arguments)
        return calls


class Wording(Protocol):
    """An interface's form of the answer to one request."""

    media_type: str  # of a stream

    def whole(self, answers: Sequence[Delta]) -> Any:
        """The n complete answers, as JSON types."""

    def step(self, deltas: Sequence[Delta]) -> bytes:
        """What a stream sends for one wake-up's pieces."""

    def end(self) -> bytes:
        """What it sends after the last."""

    def failure(self, error: ApiError) -> bytes:
        """What it sends instead, if the request failed."""


class AnswerReader:
    """Finds out what the text of answers means; a parser per answer, or none.

    single_call: leave out all but an answer's first call. make_decoder: what makes the text that
    parsers read of tokens.
    """

    def __init__(
        self,
        make_parser: Callable[[], OutputParser] | None = None,
        single_call: bool = False,
        make_decoder: Callable[[], PieceDecoder] | None = None,
    ) -> None:
        self._make_parser = make_parser
        self._single_call = single_call
        self._make_decoder = make_decoder
        self._parsers: dict[int, OutputParser] = {}
        self._places: dict[int, TokenPlaces] = {}

    def read(self, piece: Response) -> Delta:
        """The next piece of one of the answers."""
        if self._make_parser is None:
            return Delta(piece, [TextDelta(piece.text)] if piece.text else [], False)
        parser = self._parsers.get(piece.choice)
        if parser is None:
            parser = self._parsers[piece.choice] = self._make_parser()
            if self._make_decoder is not None:
                self._places[piece.choice] = TokenPlaces(self._make_decoder())
        events = parser.push(piece.text) if piece.text else []
        if piece.finish_reason is not None:
            events += parser.finish()
        if self._single_call:
            events = [event for event in events if getattr(event, "index", 0) == 0]
        thoughts = 0
        if places := self._places.get(piece.choice):
            places.push(piece.token_ids)
            thoughts = sum(places.count(*span) for span in parser.reasoning_spans)
        return Delta(piece, joined(events), parser.num_calls > 0, thoughts)


async def encode_dialogue(service: Service, record: RequestRecord, dialogue: Dialogue) -> list[int]:
    """The conversation's token ids."""
    tools = dialogue.tools.definitions
    thinking = thinking_variables(service, *dialogue.thinking)

    def work() -> list[int]:
        return service.runtime.encode_chat(
            dialogue.messages,
            prefill=dialogue.prefill,
            cache_salt=service.cache_salt(record, dialogue.cache_salt),
            add_generation_prompt=dialogue.add_generation_prompt,
            **({"tools": tools} if tools else {}),
            **{**thinking, **dialogue.variables},
        )

    return await service.encode(record, work, dialogue.messages)


async def converse(
    service: Service,
    record: RequestRecord,
    dialogue: Dialogue,
    configure: Callable[[list[int]], GenerationConfig],
    wording: Wording,
    stream: bool | None,
) -> HttpResponse:
    """Answers a conversation; ``configure`` makes the configuration when the prompt is known."""
    form, tools = service.output_format, dialogue.tools
    ids = await encode_dialogue(service, record, dialogue)
    config = configure(ids)
    tools.check(form, config.response_format)
    # The prompt's end tells whether it has opened the reasoning.
    end = service.runtime.tokenizer.decode(ids[-_LAST_TOKENS:], False)
    if tools.definitions and not is_constrained(config.response_format):
        # Schemas are read in this, which may be long ones.
        make_grammar = partial(tools.response_format, form, service.control_ids, end)
        grammar = await service.beside(make_grammar)
        if grammar is not None:
            await service.compile(record, grammar, partial(tools.explain, form))
        config = replace(config, response_format=grammar)
    make_parser = None
    if tools.definitions or form.reasoning is not None or form.tools == "gpt-oss":
        config = replace(config, skip_special_tokens=False)
        make_parser = partial(form.parser, tools.definitions, end)
    make_decoder = partial(service.runtime.tokenizer.incremental_decoder, False)
    reader = AnswerReader(make_parser, tools.single, make_decoder)
    return await respond(service, record, ids, config, wording, stream, reader)


async def respond(
    service: Service,
    record: RequestRecord,
    prompt: Sequence[int],
    config: GenerationConfig,
    wording: Wording,
    stream: bool | None,
    reader: AnswerReader,
) -> HttpResponse:
    """Has the prompt answered, at once or as it comes."""
    if stream:
        chunks = _stream(service, record, prompt, config, wording, reader)
        return EventStream(chunks, wording.failure, wording.media_type)
    async with service.generate(record, [prompt], config) as generation:
        answers = (await generation.answers())[0]

    def worded() -> HttpResponse:
        return json_response(wording.whole([reader.read(answer) for answer in answers]))

    has_rows = config.logprobs is not None or config.prompt_logprobs is not None
    if has_rows or sum(answer.generate_token_len for answer in answers) > _MANY_TOKENS:
        # Reading thousands, or a row of alternatives for each, takes longer than the event loop
        # should wait.
        return await service.beside(worded)
    return worded()


async def _stream(
    service: Service,
    record: RequestRecord,
    prompt: Sequence[int],
    config: GenerationConfig,
    wording: Wording,
    reader: AnswerReader,
) -> AsyncIterator[bytes]:
    async with service.generate(record, [prompt], config) as generation:
        while pieces := await generation.next():
            if chunk := wording.step([reader.read(piece) for piece in pieces]):
                yield chunk
    yield wording.end()


def picture_part(url: str, where: str) -> dict[str, Any]:
    """A picture of a message's content in OpenAI's form; errors call it ``where``."""
    return {"type": "image_url", "image_url": {"url": url}, "where": where}


def merged_content(parts: Sequence[str | dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Texts and pictures in order as a message's content: one text if there are no pictures, as
    templates of models that see nothing expect."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "".join(texts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def texts_of(content: str | list[Any] | None, where: str, kinds: Sequence[str]) -> str:
    """The text of a message's content: a string, or parts of the given kinds with a ``text``.

    Raises ApiError 400 for other parts.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        if part.type in kinds and part.text is None:
            raise missing_value(f"{where}.text")
        if part.type not in kinds:
            expected = f"parts of type {' or '.join(kinds)} here"
            message = f"{where}: expected {expected}, found {part.type!r}"
            raise ApiError(400, message, "unsupported_content", where)
        texts.append(part.text)
    return "".join(texts)

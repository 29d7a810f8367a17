# SPDX-License-Identifier: Apache-2.0
"""What is asked, and when."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manymind.errors import InvalidParameterError
from manymind.validation import require, require_choice, require_int, require_number

DATA = ("random", "shared_prefix", "multi_turn", "image", "custom")
# Short words that most vocabularies hold whole, so that a word is about a token.
_WORD_LIST = """
the of and to in is it you that he was for on are with as his they at be this have from or one
had by word but not what all were we when your can said there use an each which she do how
their if will up other about out many then them these so some her would make like him into time
has look two more write go see number no way could people my than first water been call who oil
its now find long down day did get come made may part river house tree light stone
"""
_WORDS = _WORD_LIST.split()


@dataclass(frozen=True)
class Conversation:
    """Turns of a user, each sent with all that was said before.

    Attributes:
        turns: contents of the user's messages: a text, or OpenAI's parts.
        history: messages before the first turn.
        output_len: most tokens of each answer.
    """

    turns: Sequence[Any]
    output_len: int
    history: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class DataConfig:
    """The conversations to make.

    Attributes:
        kind: one of DATA.
        num_requests: conversations.
        input_len: words per turn.
        prefix_len: common words before them (shared_prefix, multi_turn: in the first turn).
        num_prefixes: different common texts, evenly used.
        turns: of a conversation (multi_turn).
        image_size: side of the square picture in pixels (image).
        path: file of kind custom: per line {"prompt": ...} or {"messages": [...]}, and optionally
            "output_len".
        seed: of everything that is drawn.
    """

    kind: str = "random"
    num_requests: int = 100
    input_len: int = 256
    output_len: int = 64
    prefix_len: int = 0
    num_prefixes: int = 1
    turns: int = 1
    image_size: int = 336
    path: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("data", self.kind, DATA)
        for name in ("num_requests", "input_len", "output_len", "num_prefixes", "turns"):
            require_int(name, getattr(self, name), 1)
        require_int("prefix_len", self.prefix_len, 0)
        require_int("image_size", self.image_size, 8, 8192)
        require(
            (self.path is not None) == (self.kind == "custom"),
            "path",
            "a file with --data custom, and only then",
            self.path,
        )
        require(
            self.turns == 1 or self.kind == "multi_turn",
            "turns",
            "1 unless --data multi_turn",
            self.turns,
        )
        prefixed = self.kind in ("shared_prefix", "multi_turn")
        require(
            prefixed or not self.prefix_len,
            "prefix_len",
            "0 unless prefixes are shared",
            self.prefix_len,
        )


@dataclass
class Arrivals:
    """When requests come: at ``rate`` per second, or as soon as ``concurrency`` allows.

    Attributes:
        rate: requests per second; None: a closed loop.
        burstiness: shape of the gamma distribution of the gaps; 1 is a Poisson process, below it
            requests come in bursts.
        concurrency: most requests in flight; None: no bound.
    """

    rate: float | None = None
    burstiness: float = 1.0
    concurrency: int | None = None
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rate is not None:
            require_number("rate", self.rate, 1e-6, 1e6)
        require_number("burstiness", self.burstiness, 1e-3, 1e3)
        if self.concurrency is not None:
            require_int("concurrency", self.concurrency, 1)
        require(
            self.rate is not None or self.concurrency is not None,
            "rate",
            "a rate or a concurrency",
            None,
        )
        self._random = random.Random(self.seed)

    def offsets(self) -> Iterator[float]:
        """Seconds from the start at which each request is due."""
        due = 0.0
        while True:
            if self.rate is not None:
                scale = 1.0 / (self.rate * self.burstiness)
                due += self._random.gammavariate(self.burstiness, scale)
            yield due


def conversations(config: DataConfig) -> list[Conversation]:
    """The data of a run; the same for the same configuration."""
    if config.kind == "custom":
        return _custom(config)
    draw = random.Random(config.seed)
    prefixes = [_text(draw, config.prefix_len) for _ in range(config.num_prefixes)]
    make = {"image": _image_turn}.get(config.kind, _text_turn)
    return [
        Conversation(_turns(config, draw, prefixes[index % len(prefixes)], make), config.output_len)
        for index in range(config.num_requests)
    ]


def _turns(
    config: DataConfig,
    draw: random.Random,
    prefix: str,
    make: Callable[[DataConfig, random.Random], Any],
) -> list[Any]:
    turns = [make(config, draw) for _ in range(config.turns)]
    if prefix:
        turns[0] = f"{prefix} {turns[0]}"
    return turns


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=words))


def _text_turn(config: DataConfig, draw: random.Random) -> str:
    return _text(draw, config.input_len)


def _image_turn(config: DataConfig, draw: random.Random) -> list[dict[str, Any]]:
    from PIL import Image

    # Coarse noise: different for every request, and small enough to send.
    side = 16
    noise = Image.frombytes("RGB", (side, side), draw.randbytes(3 * side * side))
    file = io.BytesIO()
    noise.resize((config.image_size, config.image_size)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": _text(draw, config.input_len)},
    ]


def _custom(config: DataConfig) -> list[Conversation]:
    assert config.path is not None
    lines = Path(config.path).read_text(encoding="utf-8").splitlines()
    found = [
        _custom_conversation(config, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    require(bool(found), "path", "a file with requests", config.path)
    return [found[index % len(found)] for index in range(config.num_requests)]


def _custom_conversation(config: DataConfig, number: int, line: str) -> Conversation:
    try:
        item = json.loads(line)
        output_len = int(item.get("output_len", config.output_len))
        if "prompt" in item:
            return Conversation([item["prompt"]], output_len)
        *history, last = item["messages"]
        return Conversation([last["content"]], output_len, history)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidParameterError(
            f"path: line {number}: expected an object with prompt or messages, found {line[:80]!r}"
        ) from error

# SPDX-License-Identifier: Apache-2.0
"""Stop strings and prompt forms, without an engine."""

from __future__ import annotations

import codecs
import random
from collections.abc import Sequence

import pytest

from manymind.output_text import StopMatcher, TextAssembler
from manymind.prompts import as_messages, is_messages, split_prompts


def reference(
    text: str, words: list[str], include: bool, exempt: int = 0
) -> tuple[str, str | None]:
    """Reading character by character: the stop word completed first, the longest of several, behind
    so many characters.
    """
    for end in range(exempt + 1, len(text) + 1):
        completed = [word for word in words if text[:end].endswith(word)]
        if completed:
            word = max(completed, key=len)
            return text[: end if include else end - len(word)], word
    return text, None


@pytest.mark.parametrize("include", [False, True])
def test_stop_words_do_not_depend_on_how_the_text_is_cut(include: bool) -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choice("abc") for _ in range(draw.randrange(30)))
        words = ["".join(draw.choice("abc") for _ in range(draw.randrange(1, 5))) for _ in range(2)]
        matcher = StopMatcher(words, include)
        shown, at = "", 0
        while at < len(text) and matcher.matched is None:
            size = draw.randrange(1, 4)
            shown += matcher.feed(text[at : at + size])
            at += size
        if matcher.matched is None:
            shown += matcher.finish()
        expected, word = reference(text, words, include)
        assert (shown, matcher.matched) == (expected, word), (text, words)


@pytest.mark.parametrize("include", [False, True])
def test_the_first_tokens_complete_no_stop_word(include: bool) -> None:
    draw = random.Random(1)
    for _ in range(2000):
        text = "".join(draw.choice("abc") for _ in range(draw.randrange(1, 30)))
        words = ["".join(draw.choice("abc") for _ in range(draw.randrange(1, 5))) for _ in range(2)]
        exempt = draw.randrange(len(text) + 1)
        assembler = TextAssembler(Utf8Decoder(), words, include, exempt)
        shown, at = "", 0
        while at < len(text) and not assembler.stopped:
            size = draw.randrange(1, 6)
            shown += assembler.push(list(text[at : at + size].encode()), at + size >= len(text))
            at += size
        expected = reference(text, words, include, exempt)
        assert (shown, assembler.stop_word) == expected, (text, words, exempt)


def test_nothing_is_held_back_without_need() -> None:
    matcher = StopMatcher(["\n\nUser:"], include=False)
    assert matcher.feed("one\n") == "one"
    assert matcher.feed("two") == "\ntwo"
    assert matcher.feed("\n\nUser") == ""
    assert matcher.finish() == "\n\nUser"


class Utf8Decoder:
    """Each id is a byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        return self._decoder.decode(bytes(ids))


def test_an_answer_cut_inside_a_character_is_shown_without_it() -> None:
    text = "a👍"
    for stop_words in ([], ["zz"], ["az"]):
        for size in range(1, 5):
            assembler = TextAssembler(Utf8Decoder(), stop_words, include_stop=False)
            assert assembler.push(text.encode()[:size], last=True) == "a"
        assembler = TextAssembler(Utf8Decoder(), stop_words, include_stop=False)
        shown = [assembler.push([byte], last=False) for byte in text.encode()]
        assert "".join(shown) + assembler.push([], last=True) == text


def test_prompt_forms() -> None:
    conversation = [{"role": "user", "content": "hi"}]
    assert split_prompts("a") == (["a"], True)
    assert split_prompts(conversation) == ([conversation], True)
    assert split_prompts(["a", conversation]) == (["a", conversation], False)
    assert split_prompts([]) == ([], False)
    assert not is_messages([])


def test_default_system_message_yields_to_the_users() -> None:
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    assert as_messages(own, "default") == own
    assert [m["role"] for m in as_messages("hi", "default")] == ["system", "user"]
    assert as_messages("hi", None) == [{"role": "user", "content": "hi"}]

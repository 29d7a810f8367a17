# SPDX-License-Identifier: Apache-2.0
"""The tiny model's tokenizer: bytes, and one token for each word of its questions and answers."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tiny_vlm.questions import template_words

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<end_of_utterance>"
IMAGE, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
SPECIAL = (PAD, USER, ASSISTANT, END, IMAGE, AROUND, WHOLE)

# Pictures come before the text of their message, wherever they stand in it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% else %}{{ raise_exception('this model knows the roles user and assistant alone') }}"
    "{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] if item['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "{% endif %}{{ '<end_of_utterance>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE whose merges all begin with a space: " circles" is one token, but what is read
    from a picture, between quotation marks or as digits, is spelled letter by letter."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL)}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in ('"', *template_words()):
        stem = "Ġ"  # how a space is written in a byte-level vocabulary
        for letter in word:
            if stem + letter not in vocabulary:
                vocabulary[stem + letter] = len(vocabulary)
                merges.append((stem, letter))
            stem += letter
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    return tokenizer

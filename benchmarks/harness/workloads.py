# SPDX-License-Identifier: Apache-2.0
"""What is measured: every workload by name, and the token ids that all engines are given."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """How a workload is run; every adapter implements each kind or refuses it by name."""

    PREFILL = "prefill"
    DECODE = "decode"
    SHARED_PREFIX = "shared_prefix"
    FIRST_TOKEN = "first_token"


@dataclass(frozen=True)
class Workload:
    """One measured case.

    A request has `prompt_tokens + suffix_tokens` tokens of prompt, of which the first
    `prompt_tokens` are common to all requests of a `SHARED_PREFIX` workload. All engines decode
    greedily and ignore the end-of-sequence token, so that each request yields `output_tokens`.
    """

    name: str
    kind: Kind
    title: str
    unit: str
    higher_is_better: bool
    sequences: int = 1
    prompt_tokens: int = 0
    suffix_tokens: int = 0
    output_tokens: int = 1
    prefix_sent_before: bool = False
    samples: int = 1
    """Measurements taken inside one process after its warm-up; their median is the run's figure."""

    @property
    def request_tokens(self) -> int:
        """Tokens of one request, prompt and output together."""
        return self.prompt_tokens + self.suffix_tokens + self.output_tokens

    @property
    def total_tokens(self) -> int:
        """KV entries needed to hold all requests at once without sharing."""
        return self.sequences * self.request_tokens


def _prefill(prompt_tokens: int) -> Workload:
    return Workload(
        name=f"prefill_{prompt_tokens}",
        kind=Kind.PREFILL,
        title=f"prefill {prompt_tokens}",
        unit="tokens/s",
        higher_is_better=True,
        prompt_tokens=prompt_tokens,
        samples=5,
    )


def _decode(sequences: int, samples: int) -> Workload:
    return Workload(
        name=f"decode_{sequences}",
        kind=Kind.DECODE,
        title="decode, batch 1" if sequences == 1 else f"decode, {sequences} sequences",
        unit="tokens/s",
        higher_is_better=True,
        sequences=sequences,
        prompt_tokens=128,
        output_tokens=128,
        samples=samples,
    )


def _shared_prefix(sent_before: bool) -> Workload:
    return Workload(
        name="shared_prefix_warm" if sent_before else "shared_prefix_cold",
        kind=Kind.SHARED_PREFIX,
        title="32 requests, 512 tokens shared, "
        + ("prefix sent before" if sent_before else "cold"),
        unit="s",
        higher_is_better=False,
        sequences=32,
        prompt_tokens=512,
        suffix_tokens=32,
        output_tokens=32,
        prefix_sent_before=sent_before,
    )


_FIRST_TOKEN = Workload(
    name="first_token",
    kind=Kind.FIRST_TOKEN,
    title="process start to first token",
    unit="s",
    higher_is_better=False,
    samples=3,
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _prefill(512),
        _prefill(128),
        _decode(1, samples=3),
        _decode(8, samples=1),
        _decode(32, samples=1),
        _shared_prefix(sent_before=False),
        _shared_prefix(sent_before=True),
        _FIRST_TOKEN,
    )
}

PEAK_MEMORY_WORKLOAD = "decode_1"
"""The workload whose process gives the "peak memory at batch 1" row."""

FIRST_TOKEN_PROMPT = "The capital of France is"

# Inside every supported vocabulary and clear of the control tokens at its start.
_FIRST_ID, _LAST_ID = 1_000, 30_000


def token_ids(count: int, seed: int) -> list[int]:
    """`count` reproducible ids; different seeds share no prefix worth caching."""
    generator = random.Random(seed)
    return [generator.randint(_FIRST_ID, _LAST_ID) for _ in range(count)]


def prompts(workload: Workload, sample: int) -> list[list[int]]:
    """The prompts of one sample, `[sequences][prompt_tokens + suffix_tokens]`.

    Every sample has its own ids, so that no sample is answered from the cache of an earlier one.
    """
    base = 1_000_003 * (sample + 1)
    if workload.kind is not Kind.SHARED_PREFIX:
        return [token_ids(workload.prompt_tokens, base + i) for i in range(workload.sequences)]
    prefix = token_ids(workload.prompt_tokens, base)
    return [
        prefix + token_ids(workload.suffix_tokens, base + 1 + i) for i in range(workload.sequences)
    ]

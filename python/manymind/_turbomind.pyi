# SPDX-License-Identifier: Apache-2.0
"""The native module. docs/architecture.md, sections 6 and 7, says what each part means."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manymind.errors import ManymindError
from manymind.media_input import MediaInput
from manymind.models.config import DecoderConfig
from manymind.models.text_encoder import TextEncoderConfig
from manymind.models.vision_config import EncoderConfig

class EngineOptions:
    backend: str
    device_index: int
    num_threads: int
    tp: int
    dtype: str
    weight_dtype: str
    compute_dtype: str
    kv_cache_dtype: str
    block_size: int
    session_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    cache_memory_fraction: float
    num_kv_blocks: int
    enable_prefix_caching: bool
    max_encoder_patches: int
    encoder_cache_bytes: int
    max_queue_size: int
    plugin_paths: list[str]
    backend_config: dict[str, str]
    def __init__(self) -> None: ...

def scale_axis(
    image: npt.NDArray[np.uint8],
    axis: int,
    first: npt.NDArray[np.int32],
    count: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int16],
    bits: int,
) -> npt.NDArray[np.uint8]: ...
def measure_strings(data: memoryview, count: int) -> tuple[int, int]: ...

class StringTable:
    def __init__(self, data: memoryview, count: int) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, id: int) -> str: ...
    def find(self, text: str) -> int | None: ...
    def tolist(self) -> list[str]: ...

class SpmModel:
    def __init__(
        self,
        pieces: StringTable,
        scores: Any,
        apart: Sequence[int],
        byte_ids: Sequence[int],
        unknown_id: int | None,
    ) -> None: ...
    def encode(self, text: str) -> list[int]: ...

class Embedder:
    def __init__(self, model: TextEncoderConfig, options: EngineOptions) -> None: ...
    def load_weight(self, name: str, format: str, shape: Sequence[int], data: Any) -> None: ...
    def start(self) -> dict[str, int]: ...
    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]: ...
    max_text_len: int
    max_tokens: int
    num_recoveries: int
    is_lost: bool

class GuideVocabulary:
    def __init__(
        self, library: str, tokens: Sequence[bytes], eos_token_ids: Sequence[int]
    ) -> None: ...

class TokenGuide:
    @property
    def draws_to_end(self) -> int: ...
    def clone(self) -> TokenGuide: ...
    def allowed_tokens(self, vocab_size: int) -> list[int]: ...
    def accept(self, token: int, draws_left: int) -> bool: ...

class GrammarGuide(TokenGuide):
    def __init__(
        self,
        vocabulary: GuideVocabulary,
        kind: str,
        grammar: str,
        hints: Sequence[str],
        exits: Sequence[str],
        free_strings: bool,
    ) -> None: ...

class SamplingParams:
    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    bad_token_ids: list[int]
    bad_token_sequences: list[list[int]]
    allowed_token_ids: list[int]
    stop_token_ids: list[int]
    ignore_eos: bool
    eos_token_ids: list[int]
    seed: int | None
    n: int
    logprobs: int
    prompt_logprobs: int
    output_logits: str
    output_last_hidden_state: str
    priority: int
    timeout: float
    tenant: str
    tenant_weight: float
    cache_salt: str
    cache_keys: list[tuple[int, int, bytes]]
    guide: TokenGuide | None
    def __init__(self) -> None: ...

class RequestTimes:
    """Seconds on the monotonic clock; 0 = has not happened."""

    @property
    def arrival(self) -> float: ...
    @property
    def first_scheduled(self) -> float: ...
    @property
    def first_token(self) -> float: ...
    @property
    def finish(self) -> float: ...

class Output:
    @property
    def request_id(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[list[tuple[int, float]]]: ...
    @property
    def prompt_logprobs(self) -> list[list[tuple[int, float]]]: ...
    @property
    def finished(self) -> bool: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def stop_token_id(self) -> int | None: ...
    @property
    def error(self) -> ManymindError | None: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def times(self) -> RequestTimes: ...
    def take_logits(self) -> npt.NDArray[np.float32] | None: ...
    def take_last_hidden_state(self) -> npt.NDArray[np.float32] | None: ...

class Engine:
    def __init__(
        self, model: DecoderConfig, options: EngineOptions, vision: EncoderConfig | None = None
    ) -> None: ...
    def load_weight(
        self,
        name: str,
        format: str,
        shape: Sequence[int],
        data: memoryview | bytes | npt.NDArray[Any],
    ) -> None: ...
    def start(self) -> dict[str, Any]: ...
    def submit(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        media: MediaInput | None = None,
    ) -> int: ...
    def cancel(self, request_id: int) -> None: ...
    def poll(self, timeout_ms: int) -> list[Output]: ...
    def event_fd(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...
    def stop(self, drain: bool = False) -> None: ...

def list_plugins(paths: Sequence[str]) -> list[dict[str, Any]]: ...
def set_log_level(level: str) -> None: ...

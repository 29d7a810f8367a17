# SPDX-License-Identifier: Apache-2.0
"""What LMDeploy's interfaces take and this package has no use for: accepted at the values that ask
for nothing, refused by name otherwise. Names and defaults: LMDeploy 0.18.
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from manymind.errors import InvalidParameterError

# Name -> the values that ask for nothing that would not be so anyway, the default first.
Neutral: TypeAlias = "Mapping[str, tuple[object, ...]]"
Config = TypeVar("Config")

GENERATION: Neutral = MappingProxyType(
    {
        "spaces_between_special_tokens": (True,),
        "logprob_start_len": (-1,),
        "logits_processors": (None,),
        "return_ppl": (False,),
        "with_cache": (False,),
        "preserve_cache": (False,),
        "migration_request": (None,),
        "return_routed_experts": (False,),
        "repetition_ngram_size": (0,),
        "repetition_ngram_threshold": (0,),
    }
)
_TEMPLATE_PARTS = (
    *("meta_instruction", "eosys", "user", "eoh", "assistant", "eoa", "tool", "eotool"),
    *("separator", "capability", "stop_words"),
)
CHAT_TEMPLATE: Neutral = MappingProxyType(dict.fromkeys(_TEMPLATE_PARTS, (None,)))
PIPELINE: Neutral = MappingProxyType(
    {
        "max_log_len": (None,),
        "trust_remote_code": (False,),
        "speculative_config": (None,),
        "allowed_media_domains": (None,),
    }
)
CALL: Neutral = MappingProxyType({"adapter_name": (None,)})
STREAM: Neutral = MappingProxyType(
    {"adapter_name": (None,), "sessions": (None,), "stream_response": (True,)}
)
CHAT: Neutral = MappingProxyType(
    {"adapter_name": (None,), "do_preprocess": (True,), "stream_response": (False,)}
)
# The encoder takes what fits into a step, of all requests together.
VISION: Neutral = MappingProxyType({"max_batch_size": (1,), "thread_safe": (False, True)})
_COMMON: Neutral = MappingProxyType(
    {
        "dp": (1,),
        "cp": (1,),
        "ep": (1,),
        "nnodes": (1,),
        "node_rank": (0,),
        "dist_init_addr": (None,),
        "device_num": (None,),
        "model_format": (None,),
        "download_dir": (None,),
        "revision": (None,),
        "empty_init": (False,),
        "language_model_only": (False,),
        "hf_overrides": (None,),
        "enable_metrics": (True,),
        "attn_tp_size": (None,),
        "mlp_tp_size": (None,),
    }
)
TURBOMIND: Neutral = MappingProxyType(
    {
        **_COMMON,
        "rope_scaling_factor": (0.0,),
        "use_logn_attn": (False,),
        "num_tokens_per_iter": (0,),
        "max_prefill_iters": (1,),
        "cache_chunk_size": (-1,),
        "async_": (1,),
        "devices": (None,),
        "communicator": ("nccl",),
        "attn_cp_size": (None,),
        "attn_dp_size": (None,),
        "mlp_dp_size": (None,),
        "outer_dp_size": (None,),
        "cache_checkpoint_interval": (4096,),
        "cache_prompt": ("auto",),
        "cache_prompt_boundary_skip": (1,),
        "cache_generation": ("auto",),
        "gemm_input_dtype": (None, "auto"),
        "moe_a2a_backend": ("auto",),
    }
)
PYTORCH: Neutral = MappingProxyType(
    {
        **_COMMON,
        "dp_rank": (0,),
        "adapters": (None,),
        "num_cpu_blocks": (0,),
        "num_gpu_blocks": (0,),
        "prefill_interval": (16,),
        "eager_mode": (False,),
        "thread_safe": (False, True),  # always so
        "custom_module_map": (None,),
        "distributed_executor_backend": (None,),
        "enable_microbatch": (False,),
        "enable_eplb": (False,),
        "moe_tp_size": (None,),
        "kernel_block_size": (-1,),
        "cudagraph_capture_batch_sizes": (None,),
        "piecewise_cudagraph_max_tokens": (None,),
        "prefix_cache_state_budget": (0,),
        "prefix_cache_decode_state_interval": (0,),
        "enable_mp_engine": (False,),
        "mp_engine_backend": ("mp",),
        "logprobs_mode": (None,),
        "enable_return_routed_experts": (False,),
        "enable_transfer_obj_ref": (False,),
        "dllm_block_length": (None,),
        "dllm_unmasking_strategy": ("low_confidence_dynamic",),
        "dllm_denoising_steps": (None,),
        "dllm_confidence_threshold": (0.85,),
        "role": (None,),
        "migration_backend": (None,),
        "kv_transfer_config": (None,),
    }
)


def require_neutral(owner: str, given: Mapping[str, Any], neutral: Neutral) -> None:
    """Raises InvalidParameterError for the first of ``given`` that asks for something."""
    for name, value in given.items():
        if name not in neutral:
            raise InvalidParameterError(f"{owner}.{name}: there is no such parameter")
        plain = value is None or isinstance(value, (bool, int, float, str))
        if not (plain and value in neutral[name]):
            expected = " or ".join(map(repr, neutral[name]))
            raise InvalidParameterError(
                f"{owner}.{name}: not supported: expected {expected}, found {reprlib.repr(value)}"
            )


def takes_neutral(neutral: Neutral) -> Callable[[type[Config]], type[Config]]:
    """Class decorator: the constructor also takes the fields of ``neutral``, and keeps none."""

    def decorate(kind: type[Config]) -> type[Config]:
        construct = kind.__init__

        @functools.wraps(construct)
        def constructor(self: Config, *args: Any, **kwargs: Any) -> None:
            ours = {name: value for name, value in kwargs.items() if name not in neutral}
            others = {name: value for name, value in kwargs.items() if name in neutral}
            require_neutral(kind.__name__, others, neutral)
            construct(self, *args, **ours)

        kind.__init__ = constructor  # type: ignore[method-assign, assignment]
        return kind

    return decorate

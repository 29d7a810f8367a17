# SPDX-License-Identifier: Apache-2.0
"""LMDeploy's engine configurations by their own field names, so that its users change only the
import.

A field with a meaning here is mapped; any other field may only be passed with LMDeploy's default
value, which changes nothing. Field names and defaults: LMDeploy 0.18, ``lmdeploy.messages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from manymind.config import EngineConfig
from manymind.errors import InvalidParameterError

# LMDeploy field -> EngineConfig field of the same meaning and domain.
_SAME = MappingProxyType(
    {
        "dtype": "dtype",
        "tp": "tp",
        "session_len": "session_len",
        "max_batch_size": "max_batch_size",
        "cache_max_entry_count": "cache_max_entry_count",
        "cache_block_seq_len": "block_size",
        "block_size": "block_size",
        "enable_prefix_caching": "enable_prefix_caching",
        "max_prefill_token_num": "max_prefill_token_num",
    }
)
_KV_DTYPES = {0: "auto", 8: "int8"}
_BACKENDS = {"cpu": "cpu", "cuda": "cuda", "ascend": "ascend"}
_NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "dp": (1,),
        "cp": (1,),
        "ep": (1,),
        "nnodes": (1,),
        "node_rank": (0,),
        "model_format": (None,),
        "rope_scaling_factor": (0.0,),
        "use_logn_attn": (False,),
        "download_dir": (None,),
        "revision": (None,),
        "num_tokens_per_iter": (0,),
        "max_prefill_iters": (1,),
        "cache_chunk_size": (-1,),
        "async_": (1,),
        "devices": (None,),
        "empty_init": (False,),
        "language_model_only": (False,),
        "communicator": ("nccl",),
        "hf_overrides": (None,),
        "enable_metrics": (True,),
        "adapters": (None,),
        "num_cpu_blocks": (0,),
        "num_gpu_blocks": (0,),
        "prefill_interval": (16,),
        "eager_mode": (False,),
        "thread_safe": (False, True),  # every pipeline is
        "custom_module_map": (None,),
        "distributed_executor_backend": (None,),
        "enable_microbatch": (False,),
        "enable_eplb": (False,),
    }
)


def _translate(kind: str, fields: Mapping[str, Any]) -> EngineConfig:
    mapped: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _SAME:
            if value is not None:
                mapped[_SAME[name]] = value
        elif name == "quant_policy":
            mapped["kv_cache_dtype"] = _choose(kind, name, value, _KV_DTYPES)
        elif name == "device_type":
            mapped["backend"] = _choose(kind, name, value, _BACKENDS)
        elif name not in _NEUTRAL:
            raise InvalidParameterError(f"{kind}.{name}: this field is not supported")
        elif value not in _NEUTRAL[name]:
            raise InvalidParameterError(
                f"{kind}.{name}: only {_NEUTRAL[name][0]!r} is supported, found {value!r}"
            )
    return EngineConfig(**mapped)


def _choose(kind: str, name: str, value: Any, choices: Mapping[Any, str]) -> str:
    if value not in choices:
        raise InvalidParameterError(
            f"{kind}.{name}: expected one of {', '.join(map(repr, choices))}, found {value!r}"
        )
    return choices[value]


def TurbomindEngineConfig(**fields: Any) -> EngineConfig:  # noqa: N802  (LMDeploy's class name)
    """An EngineConfig from LMDeploy's TurbomindEngineConfig fields."""
    return _translate("TurbomindEngineConfig", fields)


def PytorchEngineConfig(**fields: Any) -> EngineConfig:  # noqa: N802  (LMDeploy's class name)
    """An EngineConfig from LMDeploy's PytorchEngineConfig fields."""
    return _translate("PytorchEngineConfig", fields)

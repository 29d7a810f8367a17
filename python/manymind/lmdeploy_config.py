# SPDX-License-Identifier: Apache-2.0
"""LMDeploy's engine configurations by their own field names, so that its users change only the
import: each is an EngineConfig. Field names and defaults: LMDeploy 0.18, ``lmdeploy.messages``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from manymind.config import EngineConfig
from manymind.lmdeploy_fields import PYTORCH, TURBOMIND, Neutral, require_neutral
from manymind.validation import require


def _renamed(kind: str, name: str, field: str, values: Mapping[object, str] | None = None) -> Any:
    """An attribute for the EngineConfig field of another name, whose values may be others, too."""

    def read(self: EngineConfig) -> Any:
        value = getattr(self, field)
        return next((ours for ours, theirs in (values or {}).items() if theirs == value), value)

    def write(self: EngineConfig, value: Any) -> None:
        if values is not None:
            known = isinstance(value, (str, int)) and value in values
            expected = f"one of {', '.join(map(repr, values))}"
            require(known, f"{kind}.{name}", expected, value)
            value = values[value]
        setattr(self, field, value)

    return property(read, write, doc=f"LMDeploy's name of {field}.")


def _quant_policy(kind: str) -> Any:
    return _renamed(kind, "quant_policy", "kv_cache_dtype", {0: "auto", 8: "int8"})


class _LmdeployConfig(EngineConfig):
    """Takes LMDeploy's fields with a meaning here, EngineConfig's own, and neutral ones."""

    __slots__ = ()
    _neutral: ClassVar[Neutral]

    def __init__(self, **fields: Any) -> None:
        kind = type(self)
        known = {field.name for field in dataclasses.fields(kind)}
        known |= {name for name, item in vars(kind).items() if isinstance(item, property)}
        others = {name: value for name, value in fields.items() if name not in known}
        require_neutral(kind.__name__, others, self._neutral)
        super().__init__()
        for name in known & fields.keys():
            if fields[name] is not None:  # LMDeploy's word for "as usual"
                setattr(self, name, fields[name])
        self.validate()


class TurbomindEngineConfig(_LmdeployConfig):
    """An EngineConfig by the names of LMDeploy's TurbomindEngineConfig."""

    __slots__ = ()
    _neutral = TURBOMIND
    cache_block_seq_len = _renamed("TurbomindEngineConfig", "cache_block_seq_len", "block_size")
    quant_policy = _quant_policy("TurbomindEngineConfig")


class PytorchEngineConfig(_LmdeployConfig):
    """An EngineConfig by the names of LMDeploy's PytorchEngineConfig."""

    __slots__ = ()
    _neutral = PYTORCH
    device_type = _renamed(
        "PytorchEngineConfig",
        "device_type",
        "backend",
        {"cpu": "cpu", "cuda": "cuda", "ascend": "ascend"},
    )
    quant_policy = _quant_policy("PytorchEngineConfig")

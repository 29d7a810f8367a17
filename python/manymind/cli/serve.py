# SPDX-License-Identifier: Apache-2.0
"""``manymind serve``: flags to settings, and what to install where it cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymind.cli.vision_flags import refuse_without_pictures, vision_config
from manymind.config import ChatTemplateConfig, EngineConfig
from manymind.environment import LOG_LEVELS, api_key
from manymind.errors import ManymindError
from manymind.validation import require_choice, require_int

if TYPE_CHECKING:
    from manymind.embedding_runtime import EmbeddingRuntime
    from manymind.runtime import Runtime
    from manymind.server.config import ServerConfig
    from manymind.server.keys import ApiKey

_NEEDED = ("fastapi", "httptools", "prometheus_client", "uvicorn", "uvloop")


@dataclass(frozen=True)
class ServeFlags:
    """The flags of the command."""

    model: str
    host: str
    port: int
    served_name: str | None
    api_keys: str | None
    tls_certificate: str | None
    tls_key: str | None
    allowed_hosts: str | None
    allowed_origins: str | None
    drain_seconds: float
    request_timeout: float
    max_concurrent_requests: int
    max_body_mib: int
    otlp_endpoint: str | None
    tool_call_parser: str
    reasoning_parser: str
    backend: str
    tp: int
    num_threads: int
    session_len: int
    max_batch_size: int
    weight_dtype: str
    kv_cache_dtype: str
    log_level: str
    vision: Mapping[str, Any]  # flags that were given

    def engine_config(self) -> EngineConfig:
        """The engine's part."""
        return EngineConfig(
            backend=self.backend,
            tp=self.tp,
            num_threads=self.num_threads,
            session_len=self.session_len,
            max_batch_size=self.max_batch_size,
            weight_dtype=self.weight_dtype,
            kv_cache_dtype=self.kv_cache_dtype,
        )


def run(flags: ServeFlags) -> None:
    """Loads the model and serves it until a signal ends it."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ManymindError(
            f"serve needs {', '.join(missing)}: install with pip install 'manymind[serve]'"
        )
    require_choice("log_level", flags.log_level, LOG_LEVELS)
    from manymind.server.run import require_free_address, serve

    config = server_config(flags)
    require_free_address(config)
    engine = flags.engine_config()
    runtime = _load(flags, engine)
    try:
        refuse_without_pictures(runtime, flags.vision)
        serve(runtime, config, flags.log_level)
    finally:
        runtime.close()


def _load(flags: ServeFlags, engine: EngineConfig) -> Runtime | EmbeddingRuntime:
    from manymind.embedding_runtime import EmbeddingRuntime, is_encoder
    from manymind.runtime import Runtime

    vision = vision_config(flags.vision, local_files=False)
    if is_encoder(flags.model):
        return EmbeddingRuntime.load(flags.model, engine, flags.log_level)
    return Runtime.load(flags.model, engine, ChatTemplateConfig(), flags.log_level, vision)


def server_config(flags: ServeFlags) -> ServerConfig:
    """The settings that the flags mean."""
    from manymind.server.config import Limits, ServerConfig

    require_int("max_body_mib", flags.max_body_mib, 1, 1 << 20)
    return ServerConfig(
        served_name=flags.served_name or Path(flags.model).stem,
        host=flags.host,
        port=flags.port,
        keys=_keys(flags.api_keys),
        allowed_hosts=_words(flags.allowed_hosts),
        allowed_origins=_words(flags.allowed_origins),
        tls_certificate=_path(flags.tls_certificate),
        tls_key=_path(flags.tls_key),
        drain_seconds=flags.drain_seconds,
        request_timeout=flags.request_timeout,
        otlp_endpoint=flags.otlp_endpoint,
        tool_call_parser=_name(flags.tool_call_parser),
        reasoning_parser=_name(flags.reasoning_parser),
        limits=Limits(
            max_body_bytes=flags.max_body_mib << 20,
            max_concurrent_requests=flags.max_concurrent_requests,
        ),
    )


def _keys(path: str | None) -> list[ApiKey]:
    from manymind.server import keys

    found = keys.read_keys(Path(path)) if path is not None else []
    single = api_key()
    return found if single is None else [*found, keys.api_key("environment", single)]


def _words(value: str | None) -> list[str]:
    return [word.strip() for word in (value or "").split(",") if word.strip()]


def _name(value: str) -> str | None:
    return None if value == "none" else value


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)

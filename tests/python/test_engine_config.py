# SPDX-License-Identifier: Apache-2.0
"""Every field of EngineConfig changes what it says."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from support import FieldCoverage, wait_until

from manymind import (
    EngineConfig,
    GenerationConfig,
    Pipeline,
    _turbomind,
    pipeline,
)
from manymind.errors import (
    BackendError,
    ManymindError,
    OutOfMemoryError,
    PromptTooLongError,
    QueueFullError,
)

PROMPT = "The lighthouse keeper said to the sailor that the storm would"
covers = FieldCoverage()


def start(path: Path, **fields: Any) -> Pipeline:
    return pipeline(path, EngineConfig(**{"session_len": 256, "max_batch_size": 4, **fields}))


def next_logits(path: Path, **fields: Any) -> np.ndarray:
    """Logits of the position after PROMPT."""
    config = GenerationConfig(max_new_tokens=1, output_logits="generation")
    with start(path, **fields) as pipe:
        return np.asarray(pipe(PROMPT, config, do_preprocess=False).logits[0])


def plan(path: Path, **fields: Any) -> dict[str, Any]:
    with start(path, **fields) as pipe:
        return pipe.memory_plan


def kv_bytes_per_token(path: Path, **fields: Any) -> float:
    memory = plan(path, num_kv_blocks=64, **fields)
    line = next(line for line in memory["lines"] if line["name"] == "KV cache")
    return float(line["bytes"] / memory["kv_capacity"])


@covers("backend", "device_index", "plugin_paths", "backend_config")
def test_backend_is_chosen_by_name(smollm2_path: Path) -> None:
    with pytest.raises(BackendError, match="abacus"):
        start(smollm2_path, backend="abacus")
    with pytest.raises(ManymindError, match="device"):
        start(smollm2_path, device_index=99)
    with pytest.raises(BackendError, match=r"no/such/plug-in\.so"):
        start(smollm2_path, plugin_paths=["no/such/plug-in.so"])
    with pytest.raises(ManymindError, match="no_such_setting"):
        start(smollm2_path, backend_config={"no_such_setting": "1"})


@covers("weight_dtype")
def test_floats_become_int8() -> None:
    """More of it in test_weight_dtype.py."""

    def weights(**fields: Any) -> int:
        lines = plan(GOLDEN / "tiny" / "llama", **fields)["lines"]
        return next(line["bytes"] for line in lines if line["name"] == "weights")

    assert weights(weight_dtype="int8") < 0.35 * weights()


@covers("num_threads")
def test_threads_do_not_change_results(smollm2_path: Path) -> None:
    one = next_logits(smollm2_path, num_threads=1)
    two = next_logits(smollm2_path, num_threads=2)
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ManymindError, match="num_threads"):
        start(smollm2_path, num_threads=10**6)


@covers("compute_dtype", "kv_cache_dtype", "dtype")
def test_precision_settings_change_the_numbers(smollm2_path: Path) -> None:
    exact = next_logits(smollm2_path, compute_dtype="float32", kv_cache_dtype="float32")
    usual = next_logits(smollm2_path)
    assert 0 < np.abs(usual - exact).max() < 3
    for kv_dtype in ("bfloat16", "float16", "int8"):
        other = next_logits(smollm2_path, compute_dtype="float32", kv_cache_dtype=kv_dtype)
        assert 0 < np.abs(other - exact).max() < 2
    with pytest.raises(ManymindError, match="dtype"):
        start(smollm2_path, dtype="float16", compute_dtype="float32", backend="cpu")


def test_kv_dtype_sets_the_size(smollm2_path: Path) -> None:
    full = kv_bytes_per_token(smollm2_path, kv_cache_dtype="float32")
    assert kv_bytes_per_token(smollm2_path, kv_cache_dtype="bfloat16") == full / 2
    assert full / 4 <= kv_bytes_per_token(smollm2_path, kv_cache_dtype="int8") < full / 3


@covers("block_size", "num_kv_blocks", "session_len", "cache_max_entry_count")
def test_sizes_show_in_the_memory_plan(smollm2_path: Path) -> None:
    memory = plan(smollm2_path, num_kv_blocks=100)
    assert memory["num_kv_blocks"] == 100
    assert plan(smollm2_path, num_kv_blocks=100, block_size=32)["block_size"] == 32
    assert plan(smollm2_path, session_len=128)["max_sequence_len"] == 128
    few = plan(smollm2_path, session_len=8192, max_batch_size=64, cache_max_entry_count=0.01)
    more = plan(smollm2_path, session_len=8192, max_batch_size=64, cache_max_entry_count=0.02)
    assert more["num_kv_blocks"] > 1.5 * few["num_kv_blocks"]
    wanted = (
        r"KV cache: num_kv_blocks: expected at most the .* free, found .* num_kv_blocks, cache_m"
    )
    with pytest.raises(OutOfMemoryError, match=wanted):
        start(smollm2_path, num_kv_blocks=10**9)


@covers("max_batch_size")
def test_batch_size_limits_what_runs_together(smollm2_path: Path) -> None:
    config = GenerationConfig(max_new_tokens=8, ignore_eos=True)
    steps = {}
    for size in (1, 4):
        with start(smollm2_path, max_batch_size=size, enable_prefix_caching=False) as pipe:
            pipe([PROMPT] * 4, config, do_preprocess=False)
            steps[size] = pipe.stats()["steps"]
    assert steps[1] >= 4 * 8
    assert steps[4] < 2 * 8


@covers("max_prefill_token_num")
def test_prefill_is_cut_into_chunks(smollm2_path: Path) -> None:
    config = GenerationConfig(max_new_tokens=1)
    steps = {}
    for chunk in (8, 256):
        with start(smollm2_path, max_prefill_token_num=chunk) as pipe:
            answer = pipe(PROMPT * 8, config, do_preprocess=False)
            steps[chunk] = pipe.stats()["steps"]
    assert steps[256] == 1
    assert steps[8] >= answer.input_token_len / 8


@covers("enable_prefix_caching")
def test_prefix_cache_can_be_turned_off(smollm2_path: Path) -> None:
    config = GenerationConfig(max_new_tokens=1)
    for enabled in (True, False):
        with start(smollm2_path, enable_prefix_caching=enabled) as pipe:
            pipe(PROMPT * 8, config)
            assert (pipe(PROMPT * 8, config).cached_tokens > 0) is enabled


@covers("max_queue_size")
def test_full_queue(smollm2_path: Path) -> None:
    config = GenerationConfig(max_new_tokens=200, ignore_eos=True)
    short = GenerationConfig(max_new_tokens=1)
    with start(smollm2_path, max_batch_size=1, max_queue_size=2) as pipe:
        others = [pipe.stream_infer(PROMPT, config) for _ in range(3)]
        next(others[0])  # runs; the next two fill the queue
        threads = [threading.Thread(target=next, args=(other,)) for other in others[1:]]
        for thread in threads:
            thread.start()
        wait_until(lambda: pipe.stats()["waiting"] == 2)
        with pytest.raises(QueueFullError, match="max_queue_size"):
            pipe(PROMPT, short)
        others[0].close()
        for thread in threads:
            thread.join()
        for other in others:
            other.close()
        # A long list waits for free places instead.
        assert len(pipe([PROMPT] * 16, short)) == 16


@covers("tp")
def test_tensor_parallel_ranks_agree_with_one(smollm2_path: Path) -> None:
    fields = {"compute_dtype": "float32", "kv_cache_dtype": "float32"}
    one = next_logits(smollm2_path, **fields)
    three = next_logits(smollm2_path, tp=3, **fields)  # 9 heads and 3 KV heads
    np.testing.assert_allclose(three, one, atol=2e-3)
    with pytest.raises(ManymindError, match="tp"):
        start(smollm2_path, tp=2)


def test_every_field_is_covered() -> None:
    assert {field.name for field in dataclasses.fields(EngineConfig)} == covers.fields


def test_prompt_longer_than_the_session(smollm2_path: Path) -> None:
    with start(smollm2_path, session_len=32) as pipe:
        with pytest.raises(PromptTooLongError, match="32"):
            pipe(PROMPT * 8)
        answer = pipe(
            PROMPT, GenerationConfig(max_new_tokens=500, ignore_eos=True), do_preprocess=False
        )
        assert answer.finish_reason == "length"
        assert answer.input_token_len + answer.generate_token_len == 32


def test_installed_packages_bring_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from manymind.native import plugin_paths

    library = str(tmp_path / "libturbomind-vendor.so")
    (tmp_path / "vendor_plugin.py").write_text(f"def path():\n    return {library!r}\n")
    metadata = tmp_path / "vendor_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[manymind.backends]\nvendor = vendor_plugin:path\n")
    assert library not in plugin_paths()
    monkeypatch.syspath_prepend(tmp_path)
    first, *installed, beside = plugin_paths(EngineConfig(plugin_paths=["first.so"]))
    assert first == "first.so"
    assert library in installed
    assert Path(beside, "libturbomind-cpu.so").exists()


def test_plugin_listing_is_safe_beside_a_running_engine(smollm2: Pipeline) -> None:
    from manymind.native import plugin_paths

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(_turbomind.list_plugins(plugin_paths())))
    thread.start()
    smollm2(PROMPT, GenerationConfig(max_new_tokens=4))
    thread.join()
    assert [entry["name"] for entry in found if entry["usable"]] == ["cpu"]

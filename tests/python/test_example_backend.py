# SPDX-License-Identifier: Apache-2.0
"""A plug-in built outside the tree, against the installed headers only, runs a real model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from manymind import EngineConfig, GenerationConfig, _turbomind, pipeline

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "backend"
PROMPTS = ["The capital of France is", "The capital of France is Paris. The capital of Italy is"]
GREEDY = GenerationConfig(max_new_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def example_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example back end, compiled with the headers that the package carries."""
    beside_python = os.path.dirname(sys.executable)
    cmake = shutil.which("cmake", path=os.pathsep.join([beside_python, os.environ["PATH"]]))
    assert cmake is not None
    build = tmp_path_factory.mktemp("example_backend")
    prefix = Path(_turbomind.__file__).parent
    subprocess.run([cmake, "-S", SOURCE, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"], check=True)
    subprocess.run([cmake, "--build", build], check=True)
    return build / "libturbomind-example.so"


def greedy_tokens(model: Path, config: EngineConfig) -> list[list[int]]:
    """In a process of its own, as a loaded plug-in stays, and "auto" prefers it to the CPU's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(answer, model, config).result(timeout=120)


def answer(model: Path, config: EngineConfig) -> list[list[int]]:
    with pipeline(model, config) as pipe:
        return [answer.token_ids for answer in pipe(PROMPTS, GREEDY, do_preprocess=False)]


def test_required_ops_and_compositions_run_a_real_model(
    smollm2_path: Path, example_plugin: Path
) -> None:
    """Same weights, same float32 arithmetic, other code: the same tokens as the CPU back end's."""
    example = EngineConfig(
        backend="example", plugin_paths=[str(example_plugin)], session_len=128, num_kv_blocks=32
    )
    cpu = EngineConfig(backend="cpu", compute_dtype="float32", session_len=128)
    assert greedy_tokens(smollm2_path, example) == greedy_tokens(smollm2_path, cpu)

# SPDX-License-Identifier: Apache-2.0
"""A loaded model is in memory once: the file's pages leave as the device takes their content."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from manymind import EngineConfig
from manymind.checkpoint import open_checkpoint
from manymind.fetch import resolve_model
from manymind.native import pages_go_as_they_are_read, start_engine

SMAPS = Path("/proc/self/smaps")


def resident_bytes(path: Path) -> int:
    """Bytes of ``path`` that this process has in memory by mapping it."""
    total, inside = 0, False
    for line in SMAPS.read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):  # the header of a mapping
            inside = line.endswith(str(path))
        elif inside and first == "Rss:":
            total += int(rest[0]) * 1024
    return total


def test_pages_can_be_released_and_read_again(smollm2_path: Path) -> None:
    with open_checkpoint(smollm2_path) as checkpoint:
        before = {name: bytes(tensor.data[:64]) for name, tensor in checkpoint.tensors.items()}
        for tensor in checkpoint.tensors.values():
            bytes(tensor.data)
        assert resident_bytes(smollm2_path) > 50e6
        checkpoint.release_pages()
        assert resident_bytes(smollm2_path) == 0
        for name, tensor in checkpoint.tensors.items():
            assert bytes(tensor.data[:64]) == before[name]


def test_pages_go_while_a_weight_is_read(smollm2_path: Path) -> None:
    with open_checkpoint(smollm2_path) as checkpoint:
        largest = max(checkpoint.tensors.values(), key=lambda tensor: tensor.data.nbytes)
        with pages_go_as_they_are_read(checkpoint):
            bytes(largest.data)
            deadline = time.monotonic() + 10
            while resident_bytes(smollm2_path) > 0:
                assert time.monotonic() < deadline, "the pages are kept until the weight is done"
                time.sleep(0.01)


def test_a_vocabulary_of_262k_takes_few_bytes_a_piece() -> None:
    """As Python's objects the strings, their ids and scores would take over 70 MB."""
    program = """
import os, sys
from pathlib import Path
import manymind.tokenizer.gguf, manymind.tokenizer.spm
from manymind.checkpoint import open_checkpoint
def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
with open_checkpoint(Path(sys.argv[1])) as checkpoint:
    tokenizer = manymind.tokenizer.load_tokenizer(checkpoint)
    assert tokenizer.id_to_token(tokenizer.encode("the")[-1]) == "the"
    checkpoint.release_pages()
print(tokenizer.vocab_size, resident() - before)
"""
    command = [sys.executable, "-c", program, str(resolve_model("gemma3-270m"))]
    size, growth = map(int, subprocess.check_output(command).split())
    assert size == 262_144
    assert growth < 20e6


def test_loading_leaves_no_page_of_the_file(smollm2_path: Path) -> None:
    with open_checkpoint(smollm2_path) as checkpoint:
        engine, _ = start_engine(checkpoint, EngineConfig(num_kv_blocks=8, num_threads=1))
        try:
            assert resident_bytes(smollm2_path) < 1e6
        finally:
            engine.stop()

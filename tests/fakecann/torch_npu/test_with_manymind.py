# SPDX-License-Identifier: Apache-2.0
"""manymind and torch-npu in one process, on one emulated device: what an engine on the Ascend
plug-in answers goes to torch-npu by DLPack, and what torch-npu computes comes back as a prompt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch_npu  # noqa: F401  registers the device

from manymind import EngineConfig, GenerationConfig, pipeline

TINY = Path(__file__).resolve().parents[2] / "golden/tiny/llama"
CONFIG = EngineConfig(
    backend="ascend",
    dtype="float32",
    kv_cache_dtype="float32",
    num_kv_blocks=64,
    max_batch_size=8,
)
ASKED = GenerationConfig(
    max_new_tokens=6,
    ignore_eos=True,
    do_sample=False,
    output_logits="generation",
    output_last_hidden_state="all",
)


def test_tensors_cross_in_both_directions() -> None:
    on_device = (torch.arange(12).npu() * 7 + 2).to(torch.int64)  # ACL is torch-npu's to start
    with pipeline(TINY, CONFIG) as pipe:
        prompt = np.from_dlpack(on_device.cpu()).tolist()
        answer = pipe.generate([prompt], ASKED)[0]
        again = pipe.generate([prompt], ASKED)[0]
    assert answer.input_token_len == len(prompt)
    for values in (answer.logits, answer.last_hidden_state):
        on_host = torch.from_dlpack(values)
        assert on_host.data_ptr() == np.from_dlpack(values).ctypes.data  # the same memory
        moved = on_host.npu()
        assert torch.equal((moved * 2).cpu(), on_host * 2)
    chosen = torch.from_dlpack(answer.logits).npu().argmax(1)
    assert np.from_dlpack(chosen.cpu()).tolist() == answer.token_ids == again.token_ids
    # torch-npu's device goes on after the engine has gone.
    assert (on_device + 1).sum().item() == sum(prompt) + len(prompt)

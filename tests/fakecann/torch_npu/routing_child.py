# SPDX-License-Identifier: Apache-2.0
"""torch-npu's routing of tokens to experts on a 310P, where it calls the operator that the Ascend
plug-in calls everywhere; asserts what it gives, then prints which operators it reached.
"""

from __future__ import annotations

import ctypes

import torch
import torch_npu


def main() -> None:
    """Pairs of tokens and experts by expert, those of one in the order of the pairs."""
    torch.npu.set_compile_mode(jit_compile=False)
    experts = torch.tensor([[3, 1], [1, 0], [4, 3], [1, 4]], dtype=torch.int32)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(3)).half()
    rows, places, ends, _ = torch_npu.npu_moe_init_routing_v2(
        x.npu(),
        experts.npu(),
        active_num=0,
        expert_capacity=0,
        expert_num=6,
        drop_pad_mode=0,
        expert_tokens_num_type=0,
        expert_tokens_num_flag=True,
        quant_mode=-1,
        active_expert_range=[0, 6],
        row_idx_type=0,
    )
    order = experts.flatten().argsort(stable=True)
    assert torch.equal(rows.cpu(), x[order // 2])
    assert torch.equal(places.cpu(), order.argsort().int())
    assert torch.equal(ends.cpu(), experts.flatten().bincount(minlength=6).cumsum(0).int())
    library = ctypes.CDLL("libnnopbase.so")
    library.fakecannOperatorsUsed.restype = ctypes.c_char_p
    print(library.fakecannOperatorsUsed().decode())


if __name__ == "__main__":
    main()

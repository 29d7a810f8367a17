# SPDX-License-Identifier: Apache-2.0
"""Lets torchvision, and with it transformers, be imported beside any build of torch.

torchvision's operators are compiled for one build of torch; without these two declared it cannot
even be imported. Its resizing, all that is used of it here, is torch's own.
"""

from __future__ import annotations

import torch

if not hasattr(torch.ops.torchvision, "nms"):
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # the operators live as long as it
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

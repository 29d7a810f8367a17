# SPDX-License-Identifier: Apache-2.0
"""Lets torchvision, and with it transformers, be imported beside any build of torch.

torchvision is compiled for one build. Beside another its operators cannot be loaded, and without
these two declared it cannot even be imported. Its resizing, all that is used
of it here, is torch's own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch


def _has_operators() -> bool:
    spec = find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for library in (file for folder in folders or () for file in Path(folder).glob("_C*.so")):
        try:
            torch.ops.load_library(library)
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")


if not _has_operators():
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # the operators live as long as it
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

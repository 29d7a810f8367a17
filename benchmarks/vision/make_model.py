# SPDX-License-Identifier: Apache-2.0
"""Makes a vision-language model of a published size with random weights, for speed only.

    python benchmarks/vision/make_model.py FOLDER

The shape is SmolVLM-256M's: a SigLIP-B/16 tower of 512 x 512 pixels (93M) in front of a Llama of
135M, 64 tokens per tile. Pictures are scaled to 1024 pixels: four tiles and the whole for most of
them. Needs torch and transformers; the same seed gives the same file.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(_TESTS / "parity"))
import torch  # noqa: E402
import torchvision_operators  # noqa: E402, F401  transformers can be imported beside any torchvision
import transformers  # noqa: E402

_TINY = _TESTS / "golden" / "vision" / "tiny" / "smolvlm"
_TEXT = {
    "model_type": "llama",
    "architectures": ["VLlama3ForCausalLM"],  # as SmolVLM's own; llama.cpp's converter asks for it
    "vocab_size": 49280,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": 512,
    "hidden_act": "gelu_pytorch_tanh",
}
_PREPROCESSOR = {
    "size": {"longest_edge": 1024},
    "max_image_size": {"longest_edge": 512},
    "do_image_splitting": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make(folder: Path) -> None:
    """Writes config, bf16 weights, preprocessor and the tiny models' tokenizer."""
    tiny = json.loads((_TINY / "config.json").read_text())
    config = transformers.SmolVLMConfig(
        image_token_id=tiny["image_token_id"],
        scale_factor=4,
        tie_word_embeddings=False,
        text_config=_TEXT,
        vision_config=_VISION,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config = transformers.GenerationConfig(eos_token_id=[1, 2])
    model.save_pretrained(folder)
    shutil.copy(_TINY / "tokenizer_config.json", folder / "tokenizer_config.json")
    tokenizer = json.loads((_TINY / "tokenizer.json").read_text(encoding="utf-8"))
    _take_in_blank_line(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=1) + "\n")


def _take_in_blank_line(tokenizer: dict[str, Any]) -> None:
    """Two line ends as one token, in place of the last merge: llama.cpp puts it around pictures."""
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    line_end = "\u010a"
    vocabulary[line_end * 2] = vocabulary.pop("".join(merges[-1]))
    merges[-1] = [line_end, line_end]


if __name__ == "__main__":
    make(Path(sys.argv[1]))

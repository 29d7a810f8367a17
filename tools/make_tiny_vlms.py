# SPDX-License-Identifier: Apache-2.0
"""Makes tiny seeded random checkpoints of every vision-language family, for tests.

    python tools/make_tiny_vlms.py FOLDER

Needs torch and transformers, which write them as they write published ones. The same seed gives the
same files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from make_tiny_checkpoints import BOS, EOS, VOCAB_SIZE, train_bpe
from tokenizers import AddedToken, Tokenizer

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PINPOINTS = [[a * 18, b * 18] for a in (1, 2, 3) for b in (1, 2, 3)]

# Every family's tokens in one vocabulary; ids count from VOCAB_SIZE.
MEDIA_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<video>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
TOKEN_ID = {token: VOCAB_SIZE + index for index, token in enumerate(MEDIA_TOKENS)}
PADDED_VOCAB_SIZE = VOCAB_SIZE + len(MEDIA_TOKENS) + 2

_TEXT: dict[str, Any] = {
    "vocab_size": PADDED_VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}


def chat_template(image: str, video: str = "") -> str:
    """Messages whose content is a text, or a list of pictures, videos and texts."""
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for item in message['content'] %}"
        "{% if item['type'] == 'image' %}{{ '" + image + "' }}"
        "{% elif item['type'] == 'video' %}{{ '" + video + "' }}"
        "{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


@dataclass(frozen=True)
class TinyVlm:
    """``config``: as transformers' configuration class ``config_class`` takes it. ``video``: of the
    video processor; None = as ``preprocessor``."""

    config_class: str
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    template: str
    video: dict[str, Any] | None = None


_QWEN_TEMPLATE = chat_template(
    "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
)
_QWEN_IDS = {
    "image_token_id": TOKEN_ID["<|image_pad|>"],
    "video_token_id": TOKEN_ID["<|video_pad|>"],
    "vision_start_token_id": TOKEN_ID["<|vision_start|>"],
    "vision_end_token_id": TOKEN_ID["<|vision_end|>"],
    "tie_word_embeddings": False,
}
_QWEN_PREPROCESSOR = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, **CLIP}
# Of pictures of any size; Qwen2-VL names its width otherwise.
_QWEN_VISION = {
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
_LATER_QWEN_VISION = {
    **_QWEN_VISION,
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 40,
    "out_hidden_size": 48,
}
_SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "hidden_act": "gelu_pytorch_tanh",
}


def _idefics3(
    config_class: str, longest_edge: int, tied: bool, video: dict[str, Any] | None = None
) -> TinyVlm:
    text = {**_TEXT, "model_type": "llama", "tie_word_embeddings": tied}
    return TinyVlm(
        config_class,
        {
            "image_token_id": TOKEN_ID["<image>"],
            "scale_factor": 2,
            "tie_word_embeddings": tied,
            "text_config": text,
            "vision_config": {**_SIGLIP, "image_size": 16},
        },
        {
            "size": {"longest_edge": longest_edge},
            "max_image_size": {"longest_edge": 16},
            "do_image_splitting": True,
            **HALF,
        },
        chat_template("<image>"),
        video,
    )


_SMOLVLM_VIDEO = {
    "do_sample_frames": True,
    "max_image_size": {"longest_edge": 16},
    "video_sampling": {"fps": 1, "max_frames": 4, "video_size": {"longest_edge": 24}},
    **HALF,
}


def _internvl(
    text_type: str, vision: dict[str, Any], max_patches: int, norm: dict[str, Any]
) -> TinyVlm:
    return TinyVlm(
        "InternVLConfig",
        {
            "image_token_id": TOKEN_ID["<IMG_CONTEXT>"],
            "image_seq_length": 4,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
            "text_config": {**_TEXT, "model_type": text_type},
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [16, 16],
                "patch_size": [4, 4],
                **vision,
            },
        },
        {
            "size": {"height": 16, "width": 16},
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": max_patches,
            **norm,
        },
        chat_template("<IMG_CONTEXT>\n", "<video>\n"),
    )


TINY_VLMS: dict[str, TinyVlm] = {
    "qwen2_vl": TinyVlm(
        "Qwen2VLConfig",
        {
            **_QWEN_IDS,
            "text_config": {**_TEXT, "rope_parameters": _MROPE},
            "vision_config": {
                **_QWEN_VISION,
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 48,
                "mlp_ratio": 2,
            },
        },
        {**_QWEN_PREPROCESSOR, "min_pixels": 256, "max_pixels": 4096},
        _QWEN_TEMPLATE,
        {**_QWEN_PREPROCESSOR, "min_pixels": 128, "max_pixels": 500},
    ),
    "qwen2_5_vl": TinyVlm(
        "Qwen2_5_VLConfig",
        {
            **_QWEN_IDS,
            "text_config": {**_TEXT, "rope_parameters": _MROPE},
            "vision_config": {
                **_LATER_QWEN_VISION,
                "window_size": 16,
                "fullatt_block_indexes": [1],
                "tokens_per_second": 4,
            },
        },
        {**_QWEN_PREPROCESSOR, "min_pixels": 256, "max_pixels": 4096},
        _QWEN_TEMPLATE,
    ),
    "qwen3_vl": TinyVlm(
        "Qwen3VLConfig",
        {
            **_QWEN_IDS,
            "text_config": {
                **_TEXT,
                "num_hidden_layers": 3,
                "rope_parameters": {**_MROPE, "mrope_interleaved": True},
            },
            "vision_config": {
                **_LATER_QWEN_VISION,
                "num_position_embeddings": 36,
                "deepstack_visual_indexes": [0, 2],
            },
        },
        {**_QWEN_PREPROCESSOR, "size": {"shortest_edge": 256, "longest_edge": 4096}, **HALF},
        _QWEN_TEMPLATE,
        {**_QWEN_PREPROCESSOR, "size": {"shortest_edge": 256, "longest_edge": 1500}, **HALF},
    ),
    "llava": TinyVlm(
        "LlavaConfig",
        {
            "image_token_index": TOKEN_ID["<image>"],
            "tie_word_embeddings": False,
            "text_config": {**_TEXT, "model_type": "llama"},
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 20,
                "patch_size": 4,
                "projection_dim": 16,
            },
        },
        {
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 20, "width": 20},
            "resample": 3,
            **CLIP,
        },
        chat_template("<image>\n"),
    ),
    "gemma3": TinyVlm(
        "Gemma3Config",
        {
            "image_token_index": TOKEN_ID["<image_soft_token>"],
            "boi_token_index": TOKEN_ID["<start_of_image>"],
            "eoi_token_index": TOKEN_ID["<end_of_image>"],
            "mm_tokens_per_image": 9,
            "tie_word_embeddings": True,
            "text_config": {
                **_TEXT,
                "num_hidden_layers": 3,
                "query_pre_attn_scalar": 12,
                "tie_word_embeddings": True,
                # Shorter than a picture's 9 tokens: those before it are out of sight.
                "sliding_window": 6,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            "vision_config": {**_SIGLIP, "image_size": 24, "vision_use_head": False},
        },
        {"size": {"height": 24, "width": 24}, **HALF},
        chat_template("<start_of_image>"),
    ),
    "smolvlm": _idefics3("SmolVLMConfig", 48, False, _SMOLVLM_VIDEO),
    "idefics3": _idefics3("Idefics3Config", longest_edge=32, tied=True),
    "internvl": _internvl(
        "qwen2", {"attention_bias": True, "layer_scale_init_value": 0.1}, 6, IMAGENET
    ),
    "internvl_6b": _internvl(
        "llama",
        {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"},
        4,
        HALF,
    ),
    "llava_onevision": TinyVlm(
        "LlavaOnevisionConfig",
        {
            "image_token_index": TOKEN_ID["<image>"],
            "video_token_index": TOKEN_ID["<video>"],
            "tie_word_embeddings": False,
            "image_grid_pinpoints": PINPOINTS,
            "vision_aspect_ratio": "anyres_max_2",
            "text_config": {**_TEXT, "model_type": "qwen2"},
            "vision_config": {
                "model_type": "siglip_vision_model",
                **_SIGLIP,
                "image_size": 18,
                "vision_use_head": False,
            },
        },
        {"size": {"height": 18, "width": 18}, "image_grid_pinpoints": PINPOINTS, **HALF},
        chat_template("<image>\n", "<video>\n"),
    ),
}


def make_vlms(folder: Path, text: str) -> None:
    """Writes every checkpoint below ``folder``."""
    tokenizer = train_bpe(text)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in MEDIA_TOKENS]
    )
    for name, tiny in TINY_VLMS.items():
        write_vlm(folder / name, tiny, tokenizer)


def write_vlm(folder: Path, tiny: TinyVlm, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = getattr(transformers, tiny.config_class)(**tiny.config)
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    randomize(model)
    model.generation_config = transformers.GenerationConfig(eos_token_id=[1, 2])
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "chat_template": tiny.template,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "preprocessor_config.json", tiny.preprocessor)
    if tiny.video is not None:
        _write_json(folder / "video_preprocessor_config.json", tiny.video)


def randomize(model: torch.nn.Module) -> None:
    """Seeded weights, scaled so that activations stay of order 1; a weight shared by two names is
    filled once."""
    generator = np.random.default_rng(0)
    done: set[int] = set()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.data_ptr() in done:
            continue
        done.add(parameter.data_ptr())
        shape = tuple(parameter.shape)
        values = generator.standard_normal(shape)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.2 * values
        elif "embed_tokens" in name or "lm_head" in name:
            values = 3 * values / shape[-1] ** 0.5
        elif len(shape) > 1 and "position" not in name and "token" not in name:
            values = 1.5 * values / np.prod(shape[1:]) ** 0.5
        else:
            values = 0.3 * values
        parameter.data = torch.from_numpy(values.astype(np.float32))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    text = (root / "tests" / "golden" / "text.txt").read_text(encoding="utf-8")
    make_vlms(Path(sys.argv[1]), text)


if __name__ == "__main__":
    main()

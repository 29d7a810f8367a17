# SPDX-License-Identifier: Apache-2.0
"""The tiny model: transformers' Idefics3 at 5.4 M parameters, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from tiny_vlm import tokenizer as words
from tiny_vlm.loader import GRID, IMAGE_TOKENS, PATCH, SIDE, encode
from tiny_vlm.pictures import CHARACTERS, COLOURS, SHAPES

PREFIX = encode(words.USER + words.AROUND + words.WHOLE + words.IMAGE * IMAGE_TOKENS + words.AROUND)
_IMAGE_START = 3
_MAX_ORDINAL = 8
_CONTEXT = 1024
_FIRST_SIDE = 512  # Idefics3 scales in two steps: the first must not lose what the second needs
_PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor",
    "do_image_splitting": False,
    "size": {"longest_edge": _FIRST_SIDE},
    "max_image_size": {"longest_edge": SIDE},
    "resample": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make_model() -> Any:
    """Random weights in float32, drawn from torch's generator."""
    token = words.make_tokenizer().token_to_id
    text = {
        "model_type": "llama",
        "vocab_size": words.make_tokenizer().get_vocab_size(),
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": _CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "pad_token_id": token(words.PAD),
        "bos_token_id": token(words.USER),
        "eos_token_id": token(words.END),
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "image_size": SIDE,
        "patch_size": PATCH,
        "hidden_act": "gelu_pytorch_tanh",
    }
    config = transformers.Idefics3Config(
        image_token_id=token(words.IMAGE),
        scale_factor=2,
        tie_word_embeddings=True,
        pad_token_id=token(words.PAD),
        text_config=text,
        vision_config=vision,
    )
    return transformers.AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    )


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """Pixels as the image processor gives them, [batch, 3, SIDE, SIDE], through the tower: one row
    per patch, [batch, GRID * GRID, 192]. Transformers' own layers, without its masks for pictures
    that fill their square in part."""
    tower = model.model.vision_model
    hidden = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    hidden = hidden + tower.embeddings.position_embedding.weight
    for layer in tower.encoder.layers:
        hidden = layer(hidden, None)
    return tower.post_layernorm(hidden)


def text_logits(model: Any, features: Tensor, ids: Tensor) -> Tensor:
    """Logits of the tokens that follow the picture and each of ``ids`` [batch, length] behind it:
    [batch, length + 1, vocabulary]."""
    embed = model.model.text_model.embed_tokens
    prefix = torch.tensor(PREFIX, device=ids.device).expand(len(ids), -1)
    embedded = embed(torch.cat([prefix, ids], 1))
    image = model.model.connector(features).to(embedded.dtype)
    end = _IMAGE_START + IMAGE_TOKENS
    embedded = torch.cat([embedded[:, :_IMAGE_START], image, embedded[:, end:]], 1)
    hidden = model.model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, len(PREFIX) - 1 :])


class PatchHeads(nn.Module):
    """What is drawn over each patch, guessed from the tower's output: a second task that teaches
    the tower letters and shapes within the first hundreds of steps. Not part of the checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = (len(CHARACTERS) + len(SHAPES), _MAX_ORDINAL, len(COLOURS))
        self.linear = nn.Linear(width, sum(self.sizes) + 1)

    def loss(self, features: Tensor, marks: Tensor) -> Tensor:
        """Mean cross entropies; marks: int64 [batch, 3, GRID, GRID]."""
        marks = marks.view(len(marks), 3, GRID * GRID)
        guesses = self.linear(features).float()
        covered = (marks[:, 0] >= 0).float()
        total = functional.binary_cross_entropy_with_logits(guesses[..., -1], covered)
        for index, part in enumerate(guesses[..., :-1].split(self.sizes, -1)):
            target = marks[:, index].flatten()
            found = functional.cross_entropy(
                part.flatten(0, 1), target, ignore_index=-1, reduction="sum"
            )
            total = total + found / (target >= 0).sum().clamp(min=1)
        return total


@torch.inference_mode()
def greedy(model: Any, pixels: Tensor, questions: Sequence[str], length: int = 32) -> list[str]:
    """One answer per picture and question."""
    asked = [encode(question + words.END + words.ASSISTANT) for question in questions]
    end, pad = encode(words.END)[0], encode(words.PAD)[0]
    features = image_features(model, pixels)
    ids = torch.full((len(asked), max(map(len, asked)) + length), pad, device=pixels.device)
    position = torch.tensor([len(one) for one in asked], device=pixels.device)
    for row, one in enumerate(asked):
        ids[row, : len(one)] = torch.tensor(one, device=pixels.device)
    rows = torch.arange(len(asked), device=pixels.device)
    done = torch.zeros(len(asked), dtype=torch.bool, device=pixels.device)
    for _ in range(length):
        last = int(position.max())
        found = text_logits(model, features, ids[:, :last])[rows, position].argmax(-1)
        done |= found == end
        ids[rows, position] = torch.where(done, torch.tensor(pad, device=ids.device), found)
        position += (~done).long()
        if bool(done.all()):
            break
    decode = words.make_tokenizer().decode
    return [decode(row[len(one) :]) for row, one in zip(ids.cpu().tolist(), asked, strict=True)]


def save(model: Any, folder: Path) -> None:
    """The whole folder, weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16)
    end = model.config.text_config.eos_token_id
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=end, pad_token_id=model.config.text_config.pad_token_id
    )
    model.save_pretrained(folder)
    words.make_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": words.END,
        "pad_token": words.PAD,
        "model_max_length": _CONTEXT,
    }
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": IMAGE_TOKENS}
    (folder / "chat_template.jinja").write_text(words.CHAT_TEMPLATE)
    for name, content in (
        ("tokenizer_config.json", settings),
        ("preprocessor_config.json", _PREPROCESSOR),
        ("processor_config.json", processor),
    ):
        (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

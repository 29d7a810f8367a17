# SPDX-License-Identifier: Apache-2.0
"""Trains the tiny vision-language model.

    python tools/train_tiny_vlm.py --fonts FOLDER --out FOLDER

Needs torch, transformers and the fonts named in tools/tiny_vlm/fonts.txt; takes minutes on one GPU.
Pictures, questions and weights come from the seed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_vlm.cases import accuracy, as_text, held_out_cases
from tiny_vlm.loader import ROUNDS, Batch, as_square, batches
from tiny_vlm.model import PatchHeads, greedy, image_features, make_model, save, text_logits
from tiny_vlm.pictures import Face, built_in_face, file_face
from torch import Tensor, nn
from torch.nn import functional

_WARMUP_STEPS = 150
_PATCH_LOSS = 0.3
_WRONG_SHOWN = 30


@dataclass(frozen=True)
class Recipe:
    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    device: str
    workers: int


def train(recipe: Recipe, fonts: list[Path]) -> Any:
    """The trained model, in float32."""
    drawn = -(-recipe.steps // ROUNDS)
    source = batches(fonts, recipe.seed, recipe.batch_size, drawn, recipe.workers)
    torch.manual_seed(recipe.seed)
    torch.set_float32_matmul_precision("high")
    model = make_model().to(recipe.device)
    heads = PatchHeads(model.config.vision_config.hidden_size).to(recipe.device)
    if recipe.device == "cuda":
        for layer in (*model.model.vision_model.encoder.layers, *model.model.text_model.layers):
            layer.compile()
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        _decayed(parameters), lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True
    )
    start = time.perf_counter()
    rounds = ((batch, turn) for batch in source for turn in range(ROUNDS))
    for step, (batch, turn) in enumerate(itertools.islice(rounds, recipe.steps)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        loss, patch_loss = _losses(model, heads, batch, turn, recipe.device)
        (loss + _PATCH_LOSS * patch_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == recipe.steps - 1:
            seconds = time.perf_counter() - start
            print(
                f"step {step} loss {loss.item():.4f} patches {patch_loss.item():.3f} "
                f"{(step + 1) * recipe.batch_size / seconds:.0f} pictures/s {seconds:.0f} s",
                flush=True,
            )
    trained = make_model().to(recipe.device)  # one that is not compiled
    trained.load_state_dict(model.state_dict())
    return trained.eval()


def _decayed(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not."""
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def _schedule(step: int, steps: int) -> float:
    """A short rise, then half a cosine to zero."""
    warmup = min(_WARMUP_STEPS, steps // 10 + 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def _losses(
    model: Any, heads: PatchHeads, batch: Batch, turn: int, device: str
) -> tuple[Tensor, Tensor]:
    pixels = _disturb(_normalized(torch.from_numpy(batch.pixels).to(device)))
    ids = torch.from_numpy(batch.ids[turn]).to(device).long()
    marks = torch.from_numpy(batch.marks).to(device).long()
    answers = torch.from_numpy(batch.answers[turn]).to(device).flatten().float()
    with torch.autocast(device, torch.bfloat16):
        features = image_features(model, pixels)
        patch_loss = heads.loss(features, marks)
        logits = text_logits(model, features, ids[:, :-1])
    each = functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none")
    return (each * answers).sum() / answers.sum(), patch_loss


def _normalized(pixels: Tensor) -> Tensor:
    """uint8 [batch, y, x, 3] as the image processor normalises it, [batch, 3, y, x]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _disturb(pixels: Tensor) -> Tensor:
    """A slight turn, stretch and shift, another brightness and contrast, and noise."""
    size, device = len(pixels), pixels.device
    turn = (torch.rand(size, device=device) - 0.5) * 0.12
    scale = 1 + (torch.rand(size, 2, device=device) - 0.5) * 0.1
    shift = (torch.rand(size, 2, device=device) - 0.5) * 0.06
    cos, sin = torch.cos(turn), torch.sin(turn)
    first = torch.stack([cos * scale[:, 0], -sin, shift[:, 0]], 1)
    second = torch.stack([sin, cos * scale[:, 1], shift[:, 1]], 1)
    grid = functional.affine_grid(
        torch.stack([first, second], 1), list(pixels.shape), align_corners=False
    )
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    # Half of the pictures stay sharp.
    sharp = (torch.rand(size, 1, 1, 1, device=device) < 0.5).float()
    pixels = sharp * pixels + (1 - sharp) * moved
    contrast = 0.85 + 0.2 * torch.rand(size, 1, 1, 1, device=device)
    brightness = (torch.rand(size, 1, 1, 1, device=device) - 0.5) * 0.1
    noise = 0.08 * torch.rand(size, 1, 1, 1, device=device) * torch.randn_like(pixels)
    return (pixels * contrast + brightness + noise).clamp(-1, 1)


def evaluate(model: Any, faces: list[Face], count: int, device: str) -> None:
    """Prints the accuracy by category, and some of the wrong answers."""
    cases = held_out_cases(count, faces, "after training")
    answers: list[str] = []
    for first in range(0, count, 500):
        part = cases[first : first + 500]
        pixels = torch.stack([torch.from_numpy(as_square(case.image).copy()) for case in part])
        found = greedy(model, _normalized(pixels.to(device)), [case.question for case in part])
        answers += found
    print(as_text(accuracy(cases, answers)), flush=True)
    wrong = [(case, text) for case, text in zip(cases, answers, strict=True) if case.answer != text]
    for case, text in wrong[:_WRONG_SHOWN]:
        print(f"  {case.question} {case.answer} | {text}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fonts", type=Path, required=True, help="folder of the .ttf files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3250)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--learning_rate", type=float, default=1.2e-3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--pictures", type=int, default=600, help="to score at the end")
    return parser.parse_args()


def fonts_in(folder: Path) -> list[Path]:
    """The training fonts, in the order of the list; raises FileNotFoundError for a missing one."""
    names = (Path(__file__).parent / "tiny_vlm" / "fonts.txt").read_text().split()
    found = {path.name: path for path in folder.rglob("*.ttf")}
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(f"--fonts: not below {folder}: {', '.join(missing)}")
    return [found[name] for name in names]


def main() -> None:
    arguments = _arguments()
    fonts = fonts_in(arguments.fonts)
    recipe = Recipe(
        arguments.seed,
        arguments.steps,
        arguments.batch_size,
        arguments.learning_rate,
        arguments.device,
        arguments.workers,
    )
    model = train(recipe, fonts)
    save(model, arguments.out)
    model.float()  # now what the file holds
    evaluate(model, [file_face(path) for path in fonts], arguments.pictures, recipe.device)
    evaluate(model, [built_in_face], arguments.pictures, recipe.device)


if __name__ == "__main__":
    main()

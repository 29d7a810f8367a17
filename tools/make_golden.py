# SPDX-License-Identifier: Apache-2.0
"""Makes the golden data of the tests anew, from torch, transformers and sentencepiece.

    python tools/make_golden.py [FOLDER]          # default: tests/golden

Writes tiny checkpoints of every family with the logits of transformers (float32), matrices in every
GGUF format with their values as the gguf package reads them, token ids of a corpus, rendered chats,
preprocessed pictures and embeddings. Reads text.txt and corpus.txt from tests/golden, and fetches
the two small models. Files of FOLDER that differ by rounding alone, as another processor's do,
stay as they are; the others are named.

Needs the package, requirements-dev.txt and requirements-reference.txt: `make golden` sees to it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np

_ROOT = Path(__file__).resolve().parents[1]
_GOLDEN = _ROOT / "tests" / "golden"
sys.path.insert(0, str(_ROOT / "tests" / "parity"))
sys.path.insert(0, str(_ROOT / "tools"))

import reference_text as text_reference  # noqa: E402
from make_embedding_golden import make_embeddings  # noqa: E402
from make_tiny_checkpoints import HUGGINGFACE, VOCAB_SIZE, make_all  # noqa: E402
from make_tiny_encoder import make_encoder  # noqa: E402
from make_tiny_vlms import make_vlms  # noqa: E402
from make_vision_golden import make_preprocessed, make_videos, make_vlm_logits  # noqa: E402
from reference import load_reference  # noqa: E402
from reference_embeddings import TEXTS  # noqa: E402

SEQUENCE_LENGTH = 48  # longer than the attention windows of the tiny models
ROUNDING = 2e-4  # float32 sums may be ordered differently on another processor


def make_golden(folder: Path, models: dict[str, Path]) -> None:
    """``models``: files of the catalogue's models by name."""
    text = (_GOLDEN / "text.txt").read_text(encoding="utf-8")
    make_all(folder, text)
    make_logits(folder)
    make_formats(folder)
    make_texts(folder, models)
    make_preprocessed(folder)
    make_videos(folder)
    make_vlms(folder / "vision" / "tiny", text)
    make_vlm_logits(folder)
    encoder = folder / "tiny" / "bert"
    make_encoder(encoder, "\n".join([text, *TEXTS]))
    make_embeddings(folder, encoder)


def make_logits(folder: Path) -> None:
    """logits.npz of each tiny decoder: ids [n] int32, logits [n, vocab_size] float32."""
    checkpoints = [folder / "tiny" / name for name in sorted(HUGGINGFACE)]
    checkpoints += [path for path in sorted((folder / "gguf").glob("*.gguf")) if "_" in path.name]
    for path in checkpoints:
        ids = np.random.default_rng(len(path.name)).integers(0, VOCAB_SIZE, SEQUENCE_LENGTH)
        logits = load_reference(path).logits(ids.tolist())
        target = path / "logits.npz" if path.is_dir() else path.with_suffix(".npz")
        np.savez_compressed(target, ids=ids.astype(np.int32), logits=logits)


def make_formats(folder: Path) -> None:
    """formats.npz: each matrix of formats.gguf dequantised, float32."""
    path = folder / "gguf" / "formats.gguf"
    values = {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in gguf.GGUFReader(path).tensors
    }
    np.savez_compressed(path.with_suffix(".npz"), **values)


def make_texts(folder: Path, models: dict[str, Path]) -> None:
    """texts.json: texts, their token ids by tokenizer, and rendered chats."""
    corpus = (_GOLDEN / "corpus.txt").read_text(encoding="utf-8")
    texts = text_reference.golden_texts(corpus)
    smollm2 = text_reference.smollm2_reference(models["smollm2"])
    gemma3 = text_reference.sentencepiece_reference(models["gemma3-270m"])
    tiny_bpe = text_reference.folder_reference(folder / "tiny" / "llama")
    tiny_spm = text_reference.sentencepiece_reference(folder / "gguf" / "gemma3_mixed.gguf")
    encoders: dict[str, text_reference.Encode] = {
        "smollm2": lambda text: smollm2.encode(text, add_special_tokens=False),
        "gemma3-270m": gemma3,
        "tiny_bpe": lambda text: tiny_bpe.encode(text, add_special_tokens=False),
        "tiny_spm": tiny_spm,
    }
    template = smollm2.chat_template
    chats = {
        name: text_reference.render_reference(template, messages, add_generation_prompt=True)
        for name, messages in text_reference.CONVERSATIONS.items()
    }
    content: dict[str, Any] = {
        "texts": texts,
        "ids": {name: [encode(text) for text in texts] for name, encode in encoders.items()},
        "conversations": text_reference.CONVERSATIONS,
        "smollm2_template": template,
        "chats": chats,
    }
    (folder / "texts.json").write_text(
        json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n"
    )


def copy_changes(made: Path, folder: Path) -> list[Path]:
    """Copies the files below ``made`` that ``folder`` has not; returns them, relative to both."""
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    changed = [name for name in names if not _is_kept(made / name, folder / name)]
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made / name, folder / name)
    return changed


def _is_kept(made: Path, kept: Path) -> bool:
    if not kept.is_file():
        return False
    if made.suffix == ".npz":
        found, expected = np.load(made), np.load(kept)
        return found.files == expected.files and all(
            found[name].shape == expected[name].shape
            and np.allclose(found[name], expected[name], rtol=0, atol=ROUNDING)
            for name in found.files
        )
    if made.suffix == ".json":
        return _content(made) == _content(kept)
    return made.read_bytes() == kept.read_bytes()


def _content(path: Path) -> Any:
    """Without the release that wrote it."""
    content = json.loads(path.read_text())
    if isinstance(content, dict):
        content.pop("transformers_version", None)
    return content


def main() -> None:
    from manymind.fetch import resolve_model

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else _GOLDEN
    names = ("smollm2", "gemma3-270m")
    with TemporaryDirectory() as made:
        make_golden(Path(made), {name: resolve_model(name) for name in names})
        for name in copy_changes(Path(made), folder):
            print(f"wrote {folder / name}")


if __name__ == "__main__":
    main()

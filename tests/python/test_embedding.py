# SPDX-License-Identifier: Apache-2.0
"""``embedding_pipeline()``: a tiny encoder against transformers' numbers, a decoder against its own
hidden states, and what is refused.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import ENCODER, GOLDEN

from manymind import (
    EmbeddingPipeline,
    EngineConfig,
    GenerationConfig,
    Pipeline,
    embedding_pipeline,
    pipeline,
)
from manymind.errors import (
    CheckpointError,
    EngineError,
    InvalidParameterError,
    PromptTooLongError,
    UnsupportedModelError,
)

TEXTS = json.loads((GOLDEN / "embeddings.json").read_text())
GOLDEN_ROWS = np.load(GOLDEN / "embeddings.npz")
ROWS = GOLDEN_ROWS["rows"]


@pytest.fixture(scope="module")
def bert() -> Iterator[EmbeddingPipeline]:
    with embedding_pipeline(ENCODER) as pipe:
        yield pipe


def test_embeddings_equal_transformers(bert: EmbeddingPipeline) -> None:
    found = bert(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - ROWS).max() < 1e-4
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_neighbours_in_a_batch_change_nothing(bert: EmbeddingPipeline) -> None:
    """Texts share one matrix; attention stays inside each."""
    for text, row in zip(TEXTS[:4], bert(TEXTS)[:4], strict=True):
        np.testing.assert_allclose(bert(text), row, atol=1e-6)


def test_more_than_one_step_holds(bert: EmbeddingPipeline) -> None:
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS[:6]]
    whole = bert(texts * 4)
    assert whole.shape == (len(texts) * 4, 32)
    np.testing.assert_allclose(whole[:48], whole[-48:], atol=1e-6)


def test_threads_share_it(bert: EmbeddingPipeline) -> None:
    found: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        found[index] = bert(TEXTS[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(TEXTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(np.abs(found[index] - ROWS[index]).max() for index in found) < 1e-4
    assert len(found) == len(TEXTS)


def test_a_decoder_embeds_by_its_last_token(smollm2_path: Path, smollm2: Pipeline) -> None:
    texts = ["The sea is blue.", "Bread is made of flour."]
    with embedding_pipeline(smollm2_path, EngineConfig(session_len=256)) as pipe:
        found = pipe(texts)
        assert pipe([]).shape == (0, found.shape[1])
    config = GenerationConfig(max_new_tokens=1, output_last_hidden_state="all")
    for text, row in zip(texts, found, strict=True):
        ids = smollm2.runtime.tokenizer.encode(text)
        states = np.from_dlpack(smollm2.generate([ids], config)[0].last_hidden_state)
        last = states[len(ids) - 1]
        np.testing.assert_allclose(row, last / np.linalg.norm(last), atol=2e-3)


def test_wrong_inputs_are_named(bert: EmbeddingPipeline) -> None:
    with pytest.raises(PromptTooLongError, match="at most 256 tokens, found 502"):
        bert("the " * 500)
    with pytest.raises(InvalidParameterError, match="texts"):
        bert([1])  # type: ignore[list-item]
    assert bert([]).shape == (0, 32)
    with pytest.raises(UnsupportedModelError, match=r"embedding_pipeline\(\)"):
        pipeline(ENCODER)
    with pytest.raises(InvalidParameterError, match="session_len"):
        embedding_pipeline(ENCODER, EngineConfig(session_len=513))


def test_a_longer_session_takes_longer_texts() -> None:
    with embedding_pipeline(ENCODER, EngineConfig(session_len=512)) as pipe:
        assert pipe("the " * 500).shape == (32,)


def test_a_closed_one_says_so() -> None:
    pipe = embedding_pipeline(ENCODER)
    pipe.close()
    pipe.close()
    with pytest.raises(EngineError, match="closed"):
        pipe("x")


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("config.json", {"hidden_act": "swish7"}, UnsupportedModelError, "hidden_act"),
        (
            "config.json",
            {"position_embedding_type": "relative_key"},
            UnsupportedModelError,
            "position_embedding_type",
        ),
        ("config.json", {"is_decoder": True}, UnsupportedModelError, "is_decoder"),
        ("config.json", {"num_hidden_layers": 4}, CheckpointError, r"encoder\.layer\.3"),
        ("config.json", {"hidden_size": 0}, CheckpointError, "hidden_size"),
        ("config.json", {"num_attention_heads": 7}, InvalidParameterError, "num_heads"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, UnsupportedModelError, "max"),
        (
            "1_Pooling/config.json",
            {"pooling_mode": "lasttoken"},
            UnsupportedModelError,
            "lasttoken",
        ),
        (
            "sentence_bert_config.json",
            {"do_lower_case": True},
            UnsupportedModelError,
            "do_lower_case",
        ),
    ],
)
def test_models_it_cannot_run_are_refused(
    name: str,
    change: dict[str, object],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ENCODER, folder)
    path = folder / name
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        embedding_pipeline(folder)


@pytest.mark.parametrize("field", [{"num_kv_blocks": 7}, {"enable_prefix_caching": False}])
def test_settings_of_decoders_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=f"{next(iter(field))}: .* for an encoder"):
        embedding_pipeline(ENCODER, EngineConfig(**field))


def test_modules_it_does_not_apply_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ENCODER, folder)
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(
        UnsupportedModelError, match=r"found 'sentence_transformers\.models\.Dense'"
    ):
        embedding_pipeline(folder)
    (folder / "modules.json").write_text('{"type": "list"}')
    with pytest.raises(CheckpointError, match="a JSON list"):
        embedding_pipeline(folder)


def test_the_class_token_is_pooled_where_the_folder_says_so(
    bert: EmbeddingPipeline, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ENCODER, folder)
    path = folder / "1_Pooling/config.json"
    path.write_text(json.dumps({"pooling_mode_cls_token": True}))
    with embedding_pipeline(folder) as pipe:
        first = pipe(TEXTS)
    assert np.abs(first - GOLDEN_ROWS["first"]).max() < 1e-4
    assert np.linalg.norm(first[0]) == pytest.approx(1, abs=1e-6)
    assert first[0] @ bert(TEXTS[0]) < 0.99

# SPDX-License-Identifier: Apache-2.0
"""Encoders against transformers, live: a published one and random ones of other sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openai
import pytest
from reference_embeddings import TEXTS, embed
from serving import running_server
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from manymind import EngineConfig, embedding_pipeline
from manymind.checkpoint import open_checkpoint
from manymind.embedding_runtime import EmbeddingRuntime
from manymind.fetch import resolve_model
from manymind.server.config import ServerConfig
from manymind.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def minilm_path() -> Path:
    """all-MiniLM-L6-v2."""
    return resolve_model("minilm", progress=False)


def test_embeddings_equal(minilm_path: Path) -> None:
    with embedding_pipeline(minilm_path) as pipe:
        found = pipe(TEXTS)
    assert np.abs(found - embed(minilm_path, TEXTS)).max() < 1e-4


def test_alike_texts_are_near(minilm_path: Path) -> None:
    with embedding_pipeline(minilm_path) as pipe:
        near, same, far = pipe(
            ["How do I bake bread?", "What is a way of making bread?", "The rocket left for Mars."]
        )
    assert near @ same > 0.7 > 0.3 > near @ far


def test_openais_client_gets_equal_ones(minilm_path: Path) -> None:
    runtime = EmbeddingRuntime.load(minilm_path, EngineConfig())
    with (
        running_server(runtime, ServerConfig("minilm", port=0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = client.embeddings.create(model="minilm", input=TEXTS)
    runtime.close()
    rows = np.array([item.embedding for item in answer.data])
    assert np.abs(rows - embed(minilm_path, TEXTS)).max() < 1e-4


def test_tokens_equal(minilm_path: Path) -> None:
    reference = AutoTokenizer.from_pretrained(minilm_path)
    with open_checkpoint(minilm_path) as checkpoint:
        tokenizer = load_tokenizer(checkpoint)
        for text in TEXTS:
            assert tokenizer.encode(text) == reference(text)["input_ids"]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_other_sizes_and_activations(activation: str, minilm_path: Path, tmp_path: Path) -> None:
    """A random model with 3 types, whose names begin with "bert." in some exports."""
    config = BertConfig(
        vocab_size=30522, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=80, max_position_embeddings=300, hidden_act=activation,
        type_vocab_size=3,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    BertTokenizerFast.from_pretrained(minilm_path).save_pretrained(tmp_path)
    with embedding_pipeline(tmp_path, EngineConfig(compute_dtype="float32")) as pipe:
        assert np.abs(pipe(TEXTS) - embed(tmp_path, TEXTS)).max() < 1e-5

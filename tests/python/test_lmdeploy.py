# SPDX-License-Identifier: Apache-2.0
"""Programs written for LMDeploy run with the import changed, or fail at the name of what they ask
for. The snippets follow the usage that LMDeploy 0.18 documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manymind import (
    ChatTemplateConfig,
    EngineConfig,
    GenerationConfig,
    Pipeline,
    PytorchEngineConfig,
    TurbomindEngineConfig,
    VisionConfig,
    pipeline,
)
from manymind.errors import InvalidParameterError

SNIPPETS = {
    "a batch": """
from manymind import pipeline
pipe = pipeline(MODEL)
response = pipe(["Hi, please introduce yourself", "Shanghai is"])
result = response[0].text and response[1].text
""",
    "engine and sampling settings": """
from manymind import pipeline, GenerationConfig, TurbomindEngineConfig
backend_config = TurbomindEngineConfig(
    tp=1, session_len=1024, max_batch_size=128, cache_max_entry_count=0.02, quant_policy=8
)
gen_config = GenerationConfig(
    top_p=0.8, top_k=40, temperature=0.8, do_sample=True, max_new_tokens=8, random_seed=1
)
pipe = pipeline(MODEL, backend_config=backend_config)
result = pipe(["Hi", "Shanghai is"], gen_config=gen_config)[1].text
""",
    "a batch larger than a step": """
from manymind import pipeline, TurbomindEngineConfig
backend_config = TurbomindEngineConfig(session_len=256, max_batch_size=1024)
pipe = pipeline(model_path=MODEL, backend_config=backend_config, log_level="CRITICAL")
result = pipe("Hi").text
""",
    "settings changed afterwards": """
from manymind import pipeline, TurbomindEngineConfig
config = TurbomindEngineConfig(dtype="float32", dp=1, model_format=None, async_=1)
config.session_len = 256
config.cache_block_seq_len = 32
config.quant_policy = 8
pipe = pipeline(MODEL, backend_config=config, trust_remote_code=False, max_log_len=None)
result = pipe.memory_plan["block_size"] == config.cache_block_seq_len == 32
""",
    "PyTorch engine": """
from manymind import pipeline, PytorchEngineConfig
config = PytorchEngineConfig(session_len=256, device_type="cpu", adapters=None, eager_mode=False)
pipe = pipeline(MODEL, backend_config=config)
result = pipe("Hi").text
""",
    "messages": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
prompts = [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Shanghai is"}]]
result = pipe(prompts, gen_config=GenerationConfig(max_new_tokens=8, min_new_tokens=None))[1].text
""",
    "streaming": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
pieces = []
prompts = [[{"role": "user", "content": "Hi"}]]
for item in pipe.stream_infer(prompts, gen_config=GenerationConfig(max_new_tokens=4)):
    pieces.append(item.text)
result = len(pieces) > 1 and item.finish_reason == "length"
""",
    "log probabilities": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
response = pipe(["Hi"], gen_config=GenerationConfig(logprobs=3, max_new_tokens=4))
result = [len(row) >= 3 for row in response[0].logprobs] == [True] * 4
""",
    "logits and hidden states": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
gen_config = GenerationConfig(
    output_logits="generation", output_last_hidden_state="all", max_new_tokens=4
)
response = pipe("Hi", gen_config=gen_config, adapter_name=None)
result = response.logits.shape[0] == 4 and len(response.last_hidden_state) > 4
""",
    "perplexity": """
from manymind import pipeline
pipe = pipeline(MODEL, log_level="ERROR")
result = pipe.get_ppl([[1, 2, 3], [4, 5]])
""",
    "a conversation": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
gen_config = GenerationConfig(max_new_tokens=8)
session = pipe.chat("Hello", gen_config=gen_config)
session = pipe.chat("And you?", session=session, gen_config=gen_config)
result = session.response.text
session.close()
""",
    "a conversation in a context": """
from manymind import pipeline, GenerationConfig
with pipeline(MODEL) as pipe, pipe.session() as session:
    pipe.chat("Hello", session=session, gen_config=GenerationConfig(max_new_tokens=4))
    result = session.response.generate_token_len == 4 and len(session.history) == 2
assert session.history == []
""",
    "a regular expression": """
from manymind import pipeline, GenerationConfig
pipe = pipeline(MODEL)
form = dict(type="regex_schema", regex_schema="call me [A-Za-z]{1,10}")
result = pipe("Hi", gen_config=GenerationConfig(response_format=form)).text.startswith("call me ")
""",
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run(name: str, smollm2_path: Path) -> None:
    variables: dict[str, Any] = {"MODEL": str(smollm2_path)}
    try:
        exec(SNIPPETS[name], variables)
        assert variables["result"]
    finally:
        if "pipe" in variables:
            variables["pipe"].close()


def test_turbomind_names_are_an_engine_config() -> None:
    config = TurbomindEngineConfig(
        tp=2,
        session_len=4096,
        max_batch_size=7,
        cache_max_entry_count=0.3,
        cache_block_seq_len=64,
        enable_prefix_caching=False,
        quant_policy=8,
        max_prefill_token_num=1024,
    )
    assert isinstance(config, TurbomindEngineConfig)
    assert _settings(config) == _settings(
        EngineConfig(
            tp=2,
            session_len=4096,
            max_batch_size=7,
            cache_max_entry_count=0.3,
            block_size=64,
            enable_prefix_caching=False,
            kv_cache_dtype="int8",
            max_prefill_token_num=1024,
        )
    )
    assert (config.quant_policy, config.cache_block_seq_len) == (8, 64)
    config.quant_policy = 0
    assert config.kv_cache_dtype == "auto"
    assert _settings(TurbomindEngineConfig(session_len=None)) == _settings(EngineConfig())


def test_pytorch_names_are_an_engine_config() -> None:
    config = PytorchEngineConfig(device_type="ascend", block_size=128, thread_safe=True, tp=1)
    assert _settings(config) == _settings(EngineConfig(backend="ascend", block_size=128))
    assert config.device_type == "ascend"


def _settings(config: EngineConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in EngineConfig.__slots__}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TurbomindEngineConfig, "quant_policy", 4),
        (TurbomindEngineConfig, "quant_policy", [4]),
        (TurbomindEngineConfig, "rope_scaling_factor", 2.0),
        (TurbomindEngineConfig, "dp", 2),
        (TurbomindEngineConfig, "devices", [0]),
        (TurbomindEngineConfig, "enable_metrics", False),
        (TurbomindEngineConfig, "no_such_field", 1),
        (TurbomindEngineConfig, "device_type", "cuda"),
        (PytorchEngineConfig, "device_type", "maca"),
        (PytorchEngineConfig, "eager_mode", True),
        (PytorchEngineConfig, "adapters", {"a": "b"}),
        (PytorchEngineConfig, "role", "prefill"),
        (TurbomindEngineConfig, "cache_prompt", "all"),
        (VisionConfig, "max_batch_size", 16),
        (GenerationConfig, "spaces_between_special_tokens", False),
        (GenerationConfig, "logits_processors", [print]),
        (GenerationConfig, "repetition_ngram_size", 3),
        (ChatTemplateConfig, "model_name", "qwen"),
        (ChatTemplateConfig, "meta_instruction", "You are a pirate."),
        (ChatTemplateConfig, "stop_words", ["</s>"]),
    ],
)
def test_unsupported_settings_are_named(kind: Any, field: str, value: object) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{kind.__name__}.{field}: "):
        kind(**{field: value})


def test_settings_that_ask_for_nothing() -> None:
    plain = GenerationConfig()
    assert plain == GenerationConfig(logits_processors=None, spaces_between_special_tokens=True)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        plain.logits_processors = [print]  # type: ignore[attr-defined]
    assert ChatTemplateConfig(None, meta_instruction=None) == ChatTemplateConfig()  # type: ignore[call-arg]


def test_every_default_of_lmdeploy_is_taken() -> None:
    """Fields and defaults as ``lmdeploy.messages`` has them."""
    turbomind = {"cache_checkpoint_interval": 4096, "cache_prompt": "auto", "outer_dp_size": None}
    turbomind |= {"cache_prompt_boundary_skip": 1, "cache_generation": "auto", "devices": None}
    turbomind |= {f"{part}_{kind}_size": None for part in ("attn", "mlp") for kind in ("tp", "dp")}
    TurbomindEngineConfig(**turbomind, attn_cp_size=None, moe_a2a_backend="auto")
    pytorch = {"kernel_block_size": -1, "prefix_cache_state_budget": 0, "moe_tp_size": None}
    pytorch |= {"enable_mp_engine": False, "mp_engine_backend": "mp", "logprobs_mode": None}
    pytorch |= {"dllm_unmasking_strategy": "low_confidence_dynamic", "dllm_block_length": None}
    pytorch |= {"dllm_confidence_threshold": 0.85, "dllm_denoising_steps": None}
    pytorch |= {"prefix_cache_decode_state_interval": 0, "enable_transfer_obj_ref": False}
    PytorchEngineConfig(**pytorch, cudagraph_capture_batch_sizes=None, kv_transfer_config=None)
    assert VisionConfig(max_batch_size=1, thread_safe=True) == VisionConfig()  # type: ignore[call-arg]


def test_batch_infer_is_infer(smollm2: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=2)
    (answer,) = smollm2.batch_infer(["Hi"], config)
    assert answer.text == smollm2(["Hi"], gen_config=config)[0].text


def test_a_template_is_no_positional_argument() -> None:
    """The first one is the name of a template, which no text must be taken for."""
    with pytest.raises(InvalidParameterError, match=r"model_name: expected None .* found 'qwen'"):
        ChatTemplateConfig("qwen")  # type: ignore[arg-type]


def test_settings_later_given_a_wrong_name_or_value() -> None:
    config = TurbomindEngineConfig()
    with pytest.raises(AttributeError, match="rope_scaling_factor"):
        config.rope_scaling_factor = 2.0
    with pytest.raises(InvalidParameterError, match=r"TurbomindEngineConfig\.quant_policy"):
        config.quant_policy = 4


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("infer.adapter_name", lambda pipe: pipe("hi", adapter_name="lora")),
        ("chat.stream_response", lambda pipe: pipe.chat("hi", stream_response=True)),
        ("chat.adapter_name", lambda pipe: pipe.chat("hi", adapter_name="lora")),
        (
            "stream_infer.adapter_name",
            lambda pipe: next(pipe.stream_infer("hi", adapter_name="lora")),
        ),
        (
            "stream_infer.stream_response",
            lambda pipe: next(pipe.stream_infer("hi", stream_response=False)),
        ),
    ],
)
def test_unsupported_arguments_are_named(smollm2: Pipeline, name: str, call: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{name}: not supported"):
        call(smollm2)


@pytest.mark.parametrize("argument", [{"trust_remote_code": True}, {"speculative_config": {}}])
def test_unsupported_arguments_of_pipeline(smollm2_path: Path, argument: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=f"^pipeline.{next(iter(argument))}: "):
        pipeline(smollm2_path, **argument)

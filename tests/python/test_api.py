# SPDX-License-Identifier: Apache-2.0
"""Prompt forms, batches, streaming, sessions, perplexity, asyncio and closing, on real weights."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from support import wait_until

from manymind import EngineConfig, GenerationConfig, Pipeline, Response, pipeline
from manymind.errors import EngineError, InvalidParameterError
from manymind.guided import GuideCompiler

QUESTION = "What is the capital of Japan?"
SHORT = GenerationConfig(max_new_tokens=12)
LONG = GenerationConfig(max_new_tokens=1500, ignore_eos=True)


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_answers_with_knowledge(smollm2: Pipeline) -> None:
    response = smollm2(QUESTION, GenerationConfig(max_new_tokens=32))
    assert isinstance(response, Response)
    assert "Tokyo" in response.text
    assert response.finish_reason == "stop"
    assert response.generate_token_len == len(response.token_ids)
    assert response.input_token_len > 10


def test_prompt_forms_agree(smollm2: Pipeline) -> None:
    expected = smollm2(QUESTION, SHORT).text
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    assert smollm2(messages(QUESTION), SHORT).text == expected
    assert smollm2(parts, SHORT).text == expected
    assert [r.text for r in smollm2([QUESTION], SHORT)] == [expected]
    mixed = smollm2([QUESTION, messages(QUESTION)], SHORT)
    assert [r.text for r in mixed] == [expected, expected]
    assert [r.index for r in mixed] == [0, 1]
    assert smollm2([], SHORT) == []


def test_messages_without_preprocessing_are_a_template_matter(smollm2: Pipeline) -> None:
    raw = smollm2("The capital of Japan is", SHORT, do_preprocess=False)
    assert raw.input_token_len == len(smollm2.runtime.tokenizer.encode("The capital of Japan is"))
    assert raw.input_token_len < smollm2("The capital of Japan is", SHORT).input_token_len


def test_a_configuration_per_prompt(smollm2: Pipeline) -> None:
    configs = [GenerationConfig(max_new_tokens=n, ignore_eos=True) for n in (1, 3, 7)]
    answers = smollm2([QUESTION] * 3, configs)
    assert [a.generate_token_len for a in answers] == [1, 3, 7]
    with pytest.raises(InvalidParameterError, match="gen_config: expected one or 2"):
        smollm2([QUESTION] * 2, configs)


def test_stream_pieces_make_the_whole(smollm2: Pipeline) -> None:
    prompts = [QUESTION, "Write the word 'hello' in Chinese, Japanese and as emoji."]
    config = GenerationConfig(max_new_tokens=40)
    whole = smollm2(prompts, config)
    pieces = list(smollm2.stream_infer(prompts, config))
    for index, answer in enumerate(whole):
        own = [piece for piece in pieces if piece.index == index]
        assert "".join(piece.text for piece in own) == answer.text
        assert [t for piece in own for t in piece.token_ids] == answer.token_ids
        assert [piece.finish_reason for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == answer.finish_reason
        assert own[-1].generate_token_len == answer.generate_token_len
        assert len(own) > 5


def test_leaving_a_stream_early_cancels(smollm2: Pipeline) -> None:
    before = smollm2.stats()["requests_cancelled"]
    stream = smollm2.stream_infer(QUESTION, LONG)
    next(stream)
    stream.close()
    wait_until(lambda: smollm2.stats()["requests_cancelled"] == before + 1)
    wait_until(lambda: smollm2.stats()["running"] == 0)


def test_n_answers(smollm2: Pipeline) -> None:
    config = GenerationConfig(
        n=3, do_sample=True, temperature=1.0, top_k=0, random_seed=5, max_new_tokens=12
    )
    group = smollm2("Tell me a story.", config)
    assert len(group) == 3
    assert len({answer.text for answer in group}) == 3
    with pytest.raises(InvalidParameterError, match="n: expected 1 when streaming"):
        next(smollm2.stream_infer("Tell me a story.", config))


def test_session_keeps_the_conversation_and_hits_the_prefix_cache(smollm2: Pipeline) -> None:
    session = smollm2.chat("Name a river in Egypt.", gen_config=SHORT)
    assert session.response is not None
    first = session.response.input_token_len + session.response.generate_token_len
    earlier = list(session.history)
    assert earlier[1] == {"role": "assistant", "content": session.response.text}
    session = smollm2.chat("Is it long?", session, SHORT)
    assert session.response is not None
    assert session.response.text == smollm2([*earlier, *messages("Is it long?")], SHORT).text
    assert session.response.text != smollm2("Is it long?", SHORT).text
    assert [message["role"] for message in session.history] == ["user", "assistant"] * 2
    # The earlier turn is in the cache but for its last, partly filled positions.
    assert session.response.cached_tokens >= first - 32


def test_perplexity_is_the_mean_cross_entropy(smollm2: Pipeline) -> None:
    tokenizer = smollm2.runtime.tokenizer
    text = tokenizer.encode("The quick brown fox jumps over the lazy dog.")
    noise = [text[(7 * i) % len(text)] for i in range(len(text))]
    fluent, scrambled = smollm2.get_ppl([text, noise])
    assert 0 < fluent < scrambled - 1
    assert smollm2.get_ppl(text) == [fluent]

    config = GenerationConfig(max_new_tokens=1, output_logits="all")
    logits = smollm2.generate([text], config)[0].logits.astype(np.float64)
    shifted = logits[: len(text) - 1]
    top = shifted.max(axis=1)
    log_sum = top + np.log(np.exp(shifted - top[:, None]).sum(axis=1))
    expected = np.mean(log_sum - shifted[np.arange(len(text) - 1), text[1:]])
    assert fluent == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InvalidParameterError, match="input_ids: expected at least 2 tokens"):
        smollm2.get_ppl([text, [1]])


def test_arrays_cross_by_dlpack(smollm2: Pipeline) -> None:
    config = GenerationConfig(
        max_new_tokens=4,
        ignore_eos=True,
        output_logits="generation",
        output_last_hidden_state="all",
    )
    answer = smollm2(QUESTION, config)
    logits = np.from_dlpack(answer.logits)
    hidden = np.from_dlpack(answer.last_hidden_state)
    assert logits.dtype == hidden.dtype == np.float32
    assert logits.shape[0] == 4
    assert hidden.shape == (answer.input_token_len + 3, 576)
    assert logits.argmax(axis=1).tolist() == answer.token_ids
    assert np.isfinite(hidden).all()


def test_async_agrees_with_sync(smollm2: Pipeline) -> None:
    prompts = [QUESTION, "Name a colour."]
    expected = [answer.text for answer in smollm2(prompts, SHORT)]

    async def both() -> tuple[list[Response], list[str]]:
        pieces: list[str] = ["", ""]

        async def stream() -> None:
            async for piece in smollm2.async_stream_infer(prompts, SHORT):
                pieces[piece.index] += piece.text

        answers, _ = await asyncio.gather(smollm2.async_infer(prompts, SHORT), stream())
        return answers, pieces

    answers, pieces = asyncio.run(both())
    assert [answer.text for answer in answers] == expected
    assert pieces == expected


def test_asyncio_waits_for_no_grammar(smollm2: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled on another thread than the event loop's, once for all prompts."""
    threads: list[int] = []
    compile_ = GuideCompiler.compile

    def noted(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return compile_(*arguments)

    monkeypatch.setattr(GuideCompiler, "compile", noted)
    config = GenerationConfig(response_format={"type": "choice", "choice": ["red"]})
    answers = asyncio.run(smollm2.async_infer([QUESTION] * 3, config))
    assert [answer.text for answer in answers] == ["red"] * 3
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_cancelling_a_task_cancels_its_requests(smollm2: Pipeline) -> None:
    before = smollm2.stats()["requests_cancelled"]

    async def run() -> None:
        task = asyncio.create_task(smollm2.async_infer([QUESTION] * 3, LONG))
        while smollm2.stats()["running"] < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    wait_until(lambda: smollm2.stats()["requests_cancelled"] == before + 3)


def test_interrupt_ends_the_call_and_frees_the_engine(smollm2: Pipeline) -> None:
    before = smollm2.stats()["requests_cancelled"]
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_until(lambda: smollm2.stats()["running"] == 2)
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        smollm2([QUESTION] * 2, LONG)
    interrupting.join()
    wait_until(lambda: smollm2.stats()["requests_cancelled"] == before + 2)
    assert "Tokyo" in smollm2(QUESTION, GenerationConfig(max_new_tokens=32)).text


def test_threads_share_one_pipeline(smollm2: Pipeline) -> None:
    expected = {n: smollm2(f"Count to {n}.", SHORT).text for n in range(4)}
    found: dict[int, str] = {}

    def ask(n: int) -> None:
        found[n] = smollm2(f"Count to {n}.", SHORT).text

    threads = [threading.Thread(target=ask, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_closing_ends_running_calls_and_refuses_further_ones(smollm2_path: str) -> None:
    with pipeline(smollm2_path, EngineConfig(session_len=2048)) as pipe:
        answers: list[Response] = []
        thread = threading.Thread(target=lambda: answers.append(pipe(QUESTION, LONG)))
        thread.start()
        wait_until(lambda: pipe.stats()["running"] == 1)
        pipe.close()
        thread.join(timeout=10)
        assert not thread.is_alive()
        assert answers[0].finish_reason == "cancelled"
        with pytest.raises(EngineError, match=r"closed|stopped"):
            pipe(QUESTION, SHORT)
        pipe.close()


def test_a_dropped_pipeline_stops_its_threads(smollm2_path: str) -> None:
    pipe = pipeline(smollm2_path, EngineConfig(session_len=256))
    pipe(QUESTION, GenerationConfig(max_new_tokens=1))
    engine = weakref.ref(pipe.runtime)
    del pipe
    gc.collect()
    wait_until(lambda: not any(t.name == "manymind-outputs" and engine() for t in _threads()))


def test_memory_plan_adds_up(smollm2: Pipeline) -> None:
    plan = smollm2.memory_plan
    assert plan["kv_capacity"] == plan["num_kv_blocks"] * plan["block_size"]
    assert plan["max_sequence_len"] <= 2048
    assert all(line["bytes"] >= 0 for line in plan["lines"])
    assert str(plan["num_kv_blocks"]) in plan["text"]


def test_progress_bar_counts_answers(smollm2: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    config = GenerationConfig(max_new_tokens=1)
    smollm2([QUESTION] * 3, config, use_tqdm=True)
    assert "3/3" in capfd.readouterr().err
    smollm2([QUESTION] * 3, GenerationConfig(max_new_tokens=1, n=2), use_tqdm=True)
    shown = capfd.readouterr().err
    assert "6/6" in shown
    assert "answer" in shown
    smollm2([QUESTION] * 20, config)
    assert capfd.readouterr().err == ""  # no terminal, no bar


def test_perplexity_of_certainty(smollm2: Pipeline) -> None:
    ids = smollm2.runtime.tokenizer.encode("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20")
    assert smollm2.get_ppl(ids)[0] < math.log(8)


def _threads() -> list[threading.Thread]:
    return threading.enumerate()

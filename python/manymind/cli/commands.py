# SPDX-License-Identifier: Apache-2.0
"""Signatures and help texts of the commands. Their bodies are imported when they run, to keep the
start short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manymind.cli.vision_flags import takes_vision_flags


@takes_vision_flags
def chat(
    model: str,
    prompt: str | None = None,
    image: str | None = None,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_k: int = 50,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    backend: str = "auto",
    num_threads: int = 0,
    session_len: int = 0,
    **vision: Any,
) -> None:
    """Talks with a model.

    With --prompt it answers once; without, it reads prompts until end of input. Ctrl-C stops an
    answer. A model without a chat template continues the text it is given.

    Args:
        model: a short name (see `manymind models`), a model folder or a .gguf file.
        prompt: answer this and exit.
        image: a picture, by file name or URL, that comes with the prompt or the first turn.
        system: system message.
        max_new_tokens: most tokens of one answer.
        temperature: 0 takes the likeliest token each time.
        top_k: sample among so many likeliest tokens; 0 = all.
        top_p: sample among the likeliest tokens of so much probability in sum.
        repetition_penalty: above 1 discourages tokens that occurred.
        seed: makes sampling repeatable.
        backend: plug-in to run on.
        num_threads: 0 = all cores.
        session_len: most tokens of the conversation; 0 = the model's limit.
    """
    from manymind.cli.chat import ChatOptions, run

    options = ChatOptions(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        system=system,
        backend=backend,
        num_threads=num_threads,
        session_len=session_len,
        vision=vision,
    )
    run(model, prompt, image, options)


def check_env(json: bool = False) -> None:
    """Shows versions, the machine, and each backend plug-in: usable, or why not.

    Args:
        json: print JSON.
    """
    from manymind.cli.check_env import run

    run(json)


def models(*, check: bool = False) -> None:
    """Lists the short names and whether their files are here.

    Args:
        check: read the fetched files and compare their hashes.
    """
    from manymind.cli.models import run

    run(check)


@takes_vision_flags
def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    served_name: str | None = None,
    api_keys: str | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    allowed_hosts: str | None = None,
    allowed_origins: str | None = None,
    drain_seconds: float = 30.0,
    request_timeout: float = 0.0,
    max_concurrent_requests: int = 1024,
    max_body_mib: int = 16,
    otlp_endpoint: str | None = None,
    tool_call_parser: str = "auto",
    reasoning_parser: str = "auto",
    backend: str = "auto",
    tp: int = 1,
    num_threads: int = 0,
    session_len: int = 0,
    max_batch_size: int = 32,
    weight_dtype: str = "auto",
    kv_cache_dtype: str = "auto",
    log_level: str = "info",
    **vision: Any,
) -> None:
    """Serves a model over HTTP until Ctrl-C or SIGTERM; running requests are finished first.

    Needs the extra manymind[serve]; see docs/serving.md.

    Args:
        model: a short name, a model folder or a .gguf file.
        host: address to listen on; 0.0.0.0 for all.
        port: 0 takes a free one and prints it.
        served_name: the model's name for clients.
        api_keys: JSON file of keys and their quotas; MANYMIND_API_KEY may hold a single one.
        tls_certificate: PEM file; with tls_key.
        tls_key: PEM file.
        allowed_hosts: Host headers to answer, separated by commas; * for all.
        allowed_origins: web pages elsewhere that may call, separated by commas.
        drain_seconds: how long running requests may go on after SIGTERM.
        request_timeout: seconds after which a request fails; 0 = never.
        max_concurrent_requests: beyond these, 429.
        max_body_mib: largest request body.
        otlp_endpoint: send traces there, such as http://127.0.0.1:4318/v1/traces (extra "otel").
        tool_call_parser: format of tool calls; auto asks the chat template, none looks for none.
        reasoning_parser: likewise of reasoning.
        backend: plug-in to run on.
        tp: devices that share the model.
        num_threads: 0 = all cores.
        session_len: most tokens of a sequence; 0 = the model's limit.
        max_batch_size: most sequences in one step.
        weight_dtype: auto (the checkpoint's) or int8.
        kv_cache_dtype: auto, float32, bfloat16, float16 or int8.
        log_level: debug, info, warning or error.
    """
    _serve(dict(locals()))


def _serve(flags: dict[str, Any]) -> None:
    from manymind.cli.serve import ServeFlags, run

    run(ServeFlags(**flags))


def verify_ascend(
    report: str,
    conformance: str | None = None,
    model: str | None = None,
    large_model: str | None = None,
    tests: str | None = None,
    divergences: str | None = None,
    op: str | None = None,
    soak_seconds: float = 600.0,
) -> None:
    """Repeats on Ascend devices what was tested on an emulator, and writes one JSON report.

    Exit status 0 only if every part that ran passed, differences listed beforehand aside. See
    docs/ascend.md.

    Args:
        report: file to write.
        conformance: path of the conformance runner of a build with tests; without it, that part
            and the collectives' own checks do not run.
        model: folder of a tiny checkpoint for logits, graphs and the soak; without it, these do
            not run.
        large_model: a real checkpoint for logits and tokens, such as SmolLM2-135M's .gguf file.
        tests: the tests folder of a checkout, whose comparisons of every family with transformers
            run on the device (needs pytest); without it, they do not run.
        divergences: JSON file of known differences, such as backends/ascend/divergences.json.
        op: of the conformance suite, run this op's cases only.
        soak_seconds: how long the soak lasts; 0 leaves it out.
    """
    from manymind.cli.verify_ascend import run

    run(report, conformance, model, large_model, tests, divergences, op, soak_seconds)


_BENCH_ARGUMENTS = """

    Args:
        model: a short name, a model folder or a .gguf file.
        input_len: tokens per prompt (random, so that no two share a prefix).
        output_len: tokens generated per prompt.
        num_prompts: how many prompts.
        concurrency: how many of them in flight at once.
        json: write the results to this file, too.
        backend: plug-in to run on.
        num_threads: 0 = all cores.
        weight_dtype: auto (the checkpoint's) or int8.
        kv_cache_dtype: auto, float32, bfloat16, float16 or int8.
    """


def _bench(name: str, summary: str, prompts: int, in_flight: int) -> Callable[..., None]:
    """A command that puts a load on the engine; the commands differ in the load they suggest."""

    def command(
        model: str,
        input_len: int = 512,
        output_len: int = 128,
        num_prompts: int = prompts,
        concurrency: int = in_flight,
        json: str | None = None,
        backend: str = "auto",
        num_threads: int = 0,
        weight_dtype: str = "auto",
        kv_cache_dtype: str = "auto",
    ) -> None:
        from manymind.cli.bench import Load, run

        load = Load(input_len, output_len, num_prompts, concurrency)
        run(model, load, json, backend, num_threads, weight_dtype, kv_cache_dtype)

    command.__name__ = command.__qualname__ = name
    command.__doc__ = summary + _BENCH_ARGUMENTS
    return command


throughput = _bench(
    "throughput", "Measures tokens per second with many requests in flight.", 32, 32
)
latency = _bench(
    "latency",
    "Measures the time to the first and to each further token, one request at a time.",
    8,
    1,
)


def bench_serve(
    model: str,
    url: str = "http://127.0.0.1:8000",
    endpoint: str = "chat",
    data: str = "random",
    path: str | None = None,
    num_requests: int = 100,
    input_len: int = 256,
    output_len: int = 64,
    prefix_len: int = 0,
    num_prefixes: int = 1,
    turns: int = 1,
    image_size: int = 336,
    rate: str | None = None,
    burstiness: float = 1.0,
    concurrency: str | None = None,
    goodput: str = "",
    warmup: int = 1,
    ignore_eos: bool = False,
    extra_body: str = "{}",
    timeout: float = 600.0,
    seed: int = 0,
    json: str | None = None,
    html: str | None = None,
) -> None:
    """Puts a load on a server with OpenAI's interface and measures what its clients see.

    Without --rate the loop is closed: --concurrency requests are kept in flight. Latencies count
    from when a request was due. The key, if any, comes from MANYMIND_API_KEY.

    Args:
        model: the name that the server knows the model by.
        url: of the server.
        endpoint: chat or completions.
        data: random, shared_prefix, multi_turn, image or custom.
        path: file for custom; per line {"prompt": ...} or {"messages": [...]}.
        num_requests: per point of the sweep; conversations, where there are several turns.
        input_len: words per prompt or turn, about as many tokens.
        output_len: most tokens of an answer.
        prefix_len: common words before them, for shared_prefix and multi_turn.
        num_prefixes: different common texts.
        turns: of a conversation, for multi_turn.
        image_size: side of the picture in pixels.
        rate: requests per second; several, separated by commas, are a sweep.
        burstiness: shape of the gamma distribution of gaps; 1 is Poisson, less comes in bursts.
        concurrency: most requests in flight; several, separated by commas, are a sweep.
        goodput: objectives in milliseconds, such as ttft:500,tpot:50,e2e:8000.
        warmup: requests before the first measurement.
        ignore_eos: have every answer reach output_len; servers must know the parameter.
        extra_body: further fields of each request, as a JSON object.
        timeout: seconds after which an answer counts as failed.
        seed: of prompts and arrivals.
        json: write the results to this file.
        html: write a report with plots to this file.
    """
    flags = dict(locals())
    from manymind.cli.bench_serve import BenchServeFlags, run_command

    run_command(BenchServeFlags(**flags))

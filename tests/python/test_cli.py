# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: a process, its output and its exit status."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, cast

import pytest

from manymind import GenerationConfig, Pipeline
from manymind.cli import chat
from manymind.config import RequestTimes, Response

COMMAND = [sys.executable, "-m", "manymind"]
QUESTION = "What is the capital of Japan?"


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> str:
    return str(smollm2_path)


def test_chat_answers_once(model: str) -> None:
    done = run("chat", model, "--prompt", QUESTION, "--session_len=512")
    assert done.returncode == 0, done.stderr
    assert "Tokyo" in done.stdout
    assert re.fullmatch(
        r"\[\d+ tokens, first after \d+\.\d{3} s, then \d+\.\d tokens/s\]", done.stderr.strip()
    )


@pytest.mark.parametrize(
    ("reason", "tokens", "expected"),
    [
        ("length", 11, "[11 tokens, first after 0.500 s, then 20.0 tokens/s]"),
        ("stop", 10, "[10 tokens, first after 0.500 s, then 20.0 tokens/s]"),
        ("length", 1, "[1 tokens, first after 0.500 s]"),
    ],
)
def test_rates_come_from_the_engine_however_few_pieces(
    reason: str, tokens: int, expected: str
) -> None:
    """One piece with the tokens of half a second."""

    class OnePiece:
        def stream_infer(self, *_: object) -> Iterator[Response]:
            first = time.monotonic() + 0.5
            times = RequestTimes(first - 0.4, first - 0.3, first, first + 0.5)
            yield Response("text", tokens, 5, reason, times=times)

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        chat._answer(cast(Pipeline, OnePiece()), "?", GenerationConfig())
    assert (out.getvalue(), err.getvalue()) == ("text\n", expected + "\n")


def test_answer_and_figures_in_one_file(model: str) -> None:
    command = [*COMMAND, "chat", model, "--prompt", QUESTION, "--session_len=512"]
    both = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    answer, figures = both.stdout.splitlines()
    assert "Tokyo" in answer
    assert figures.startswith("[")


def test_chat_flags_reach_the_engine(model: str) -> None:
    common = ("chat", model, "--session_len=512", "--max_new_tokens=24", "--prompt")
    greedy = run(*common, "Tell me a story.").stdout
    sampled = run(*common, "Tell me a story.", "--temperature=1.5", "--top_k=0", "--seed=4").stdout
    again = run(*common, "Tell me a story.", "--temperature=1.5", "--top_k=0", "--seed=4").stdout
    pirate = run(*common, "Tell me a story.", "--system", "You are a pirate.").stdout
    assert greedy != sampled == again
    assert greedy != pirate


def test_a_prompt_is_text_even_if_it_looks_like_python(model: str) -> None:
    done = run("chat", model, "--prompt", "[1, 2, 3]", "--max_new_tokens=4", "--session_len=512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_conversation_remembers(model: str) -> None:
    turns = f"{QUESTION}\nRepeat your last answer.\n/new\nRepeat your last answer.\n/exit\nunread\n"
    done = run("chat", model, "--max_new_tokens=16", "--session_len=512", stdin=turns)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.strip().split("\n")
    assert "Tokyo" in answers[0]
    assert "Tokyo" in done.stdout.split("\n", 1)[1]
    assert done.stderr.count("tokens, first after") == 3
    assert "no chat template" not in done.stderr


def test_base_model_continues_plain_text(gemma_path: Path) -> None:
    turns = "1, 2, 3, 4, 5, 6,\n"
    done = run("chat", str(gemma_path), "--max_new_tokens=8", "--session_len=256", stdin=turns)
    assert done.returncode == 0, done.stderr
    assert "no chat template" in done.stderr
    assert "7, 8" in done.stdout


def test_an_error_within_a_conversation_does_not_end_it(model: str) -> None:
    turns = f"{'word ' * 300}\n{QUESTION}\n"
    done = run("chat", model, "--max_new_tokens=16", "--session_len=128", stdin=turns)
    assert done.returncode == 0
    assert "error: " in done.stderr
    assert "Tokyo" in done.stdout


@contextmanager
def conversation(model: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """``manymind chat`` on a terminal of its own."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "chat", model, "--max_new_tokens=2000", "--session_len=2048"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    ) as process:
        os.close(follower)
        with os.fdopen(leader, "r+b", buffering=0) as terminal:
            try:
                yield process, terminal
            finally:
                process.kill()


def read_until(terminal: IO[bytes], pattern: str, seconds: float = 60.0) -> str:
    seen = b""
    deadline = time.monotonic() + seconds
    while not re.search(pattern.encode(), seen):
        left = deadline - time.monotonic()
        readable, _, _ = select.select([terminal], [], [], max(left, 0.0))
        assert readable, f"{pattern!r} did not come in time: {seen!r}"
        seen += terminal.read(4096)
    return seen.decode(errors="replace")


def interrupt_until(process: subprocess.Popen[bytes], terminal: IO[bytes], pattern: str) -> None:
    """Again and again: a signal just after the prompt was shown may wait for the next key."""
    seen = b""
    for _ in range(60):
        process.send_signal(signal.SIGINT)
        while select.select([terminal], [], [], 1.0)[0]:
            seen += terminal.read(4096)
        if re.search(pattern.encode(), seen):
            return
    pytest.fail(f"{pattern!r} did not come in time: {seen!r}")


def test_interrupt_stops_the_answer_and_not_the_program(model: str) -> None:
    with conversation(model) as (process, terminal):
        read_until(terminal, r"\n> ")
        terminal.write(b"Write a very long story about the sea.\n")
        read_until(terminal, r"sea\.\r\n.{40}")
        process.send_signal(signal.SIGINT)
        read_until(terminal, r"\[stopped\]")
        terminal.write(b"/new\n")
        terminal.write(QUESTION.encode() + b"\n")
        read_until(terminal, r"Tokyo[^>]*\n> ")
        interrupt_until(process, terminal, r"/exit[^>]*\n> ")
        terminal.write(b"/exit\n")
        assert process.wait(timeout=30) == 0


def test_interrupt_of_a_single_answer_ends_the_program(model: str) -> None:
    command = [*COMMAND, "chat", model, "--prompt", "Count to a million.", "--max_new_tokens=8000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_is_no_crash(model: str) -> None:
    command = [*COMMAND, "chat", model, "--prompt", "Count to a thousand.", "--max_new_tokens=400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chat", "no-such-model", "--prompt", "hi"), "no-such-model"),
        (("chat", __file__, "--prompt", "hi"), "gguf"),
        (("bench", "latency", "no-such-model"), "no-such-model"),
        (("bench", "latency", "smollm2", "--json", "no/such/folder/x.json"), "json"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("manymind: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--max_new_tokens=-1", "max_new_tokens"),
        ("--max_new_tokens=lots", "max_new_tokens"),
        ("--temperature=-1", "temperature"),
        ("--backend=abacus", "abacus"),
        ("--session_len=1.5", "session_len"),
    ],
)
def test_a_bad_value_is_named(model: str, flag: str, name: str) -> None:
    done = run("chat", model, "--prompt", "hi", flag)
    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("chat",),
        ("chatter", "smollm2"),
        ("chat", "smollm2", "--promt", "hi"),
        ("bench", "speed", "smollm2"),
        ("models", "surplus"),
        ("chat", "smollm2", "--prompt"),
        ("chat", "smollm2", "--prompt", "--seed=1"),
        ("bench", "latency", "smollm2", "--json"),
    ],
)
def test_a_line_that_does_not_parse_is_status_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""


def test_without_a_command_there_is_help() -> None:
    done = run()
    assert "Traceback" not in done.stderr
    assert all(name in done.stdout + done.stderr for name in ("chat", "serve", "check_env"))


def test_what_cannot_be_served_is_said_before_the_model_is_loaded(model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", model, f"--port={port}")
    assert done.returncode == 1
    assert done.stderr.startswith("manymind: error: host, port: expected an address to listen on")
    done = run("serve", model, "--tool_call_parser=nope")
    assert done.returncode == 1
    assert done.stderr.startswith("manymind: error: tool_call_parser: expected one of")


def test_help_lists_what_there_is() -> None:
    text = run("chat", "--help").stderr
    assert "--repetition_penalty" in text
    assert "METADATA" not in text
    assert "bench" in run("--help").stderr


def test_check_env() -> None:
    report = json.loads(run("check_env", "--json").stdout)
    usable = [backend for backend in report["backends"] if backend["usable"]]
    assert [backend["name"] for backend in usable] == ["cpu"]
    assert usable[0]["device"]["total_memory_bytes"] > 0
    assert {"numpy", "tokenizers", "tqdm", "fire"} <= report["packages"].keys()
    assert all(report["packages"].values())
    assert "safetensors" not in report["packages"]  # the tests' own
    text = run("check_env").stdout
    assert "cpu" in text
    assert report["python"] in text


def test_models_and_version() -> None:
    lines = run("models").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["smollm2", "gemma3-270m", "minilm", "tiny-vlm"]
    assert "intact: " in run("models", "--check").stdout
    assert run("--version").stdout.startswith("manymind 0.")


@pytest.mark.parametrize("kind", ["throughput", "latency"])
def test_bench(model: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    sizes = ("--input_len=24", "--output_len=6", "--num_prompts=5", "--concurrency=2")
    done = run("bench", kind, model, *sizes, "--json", str(file))
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert result["num_prompts"] == 5
    assert result["output_tokens_per_second"] == pytest.approx(5 * 6 / result["seconds"])
    assert result["total_tokens_per_second"] == pytest.approx(5 * 30 / result["seconds"])
    assert result["peak_memory_bytes"] > 50e6
    for metric in ("ttft_ms", "tpot_ms", "itl_ms"):
        row = result[metric]
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] < 1e3 * result["seconds"]
    assert "TTFT" in done.stdout
    assert ", 2 in flight: " in done.stdout
    assert run("bench", kind, model, "--concurrency=0").returncode == 1


def test_bench_of_more_at_once_than_there_are(model: str) -> None:
    sizes = ("--input_len=4", "--output_len=2", "--num_prompts=2", "--concurrency=1000")
    done = run("bench", "throughput", model, *sizes)
    assert done.returncode == 0, done.stderr
    assert ", 2 in flight: " in done.stdout

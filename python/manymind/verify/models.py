# SPDX-License-Identifier: Apache-2.0
"""A tiny model on the device against the CPU: logits, tokens, graphs, several ranks, a soak."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymind.verify.child import call
from manymind.verify.outcomes import Check, Section
from manymind.verify.reference import BOUNDS, Reference

if TYPE_CHECKING:
    from manymind.verify.reference import Logits

TOKENS = 12


class ModelChecks:
    """Runs of one checkpoint, compared with what the CPU computes in float32."""

    def __init__(self, model: str, backend: str, limit: float) -> None:
        self._path = model
        self._backend = backend
        self._limit = limit
        self._folder = tempfile.TemporaryDirectory()
        self._reference: Reference | None = None

    def close(self) -> None:
        self._folder.cleanup()

    def prepare(self) -> str:
        """Asks the CPU; what went wrong, or nothing."""
        reference = self._run("cpu", "float32", logits="cpu")
        if "error" not in reference:
            self._reference = Reference(reference["answers"], self._load("cpu"), TOKENS)
        return _error(reference)

    def model(self, name: str) -> Section:
        """Logits of every position, and tokens."""
        section = Section(name)
        section.add("cpu_reference", self.prepare())
        if self._reference is None:
            return section
        for dtype in BOUNDS:
            found = self._run(self._backend, dtype, logits=dtype)
            wrong = _error(found)
            section.add(
                f"{dtype}/tokens", wrong or self._reference.wrong_tokens(found["answers"], dtype)
            )
            section.add(
                f"{dtype}/logits",
                wrong or self._reference.wrong_logits(found["answers"], self._load(dtype), dtype),
            )
        return section

    def graph(self, offered: bool) -> Section:
        """Decode steps as graphs."""
        if self._reference is None:
            return Section("graph", reason="the CPU gave nothing to compare with")
        if not offered:
            return Section("graph", reason="the device captures no graphs")
        section = Section("graph")
        found = self._run(self._backend, "bfloat16")
        wrong = _error(found)
        section.add("tokens", wrong or self._reference.wrong_tokens(found["answers"], "bfloat16"))
        if not wrong and found["graph_replays"] == 0:
            wrong = "expected decode steps to be replayed, found none"
        section.add("replays", wrong)
        return section

    def ranks(self, size: int) -> Check:
        """The model split over so many devices."""
        name = f"model_ranks{size}"
        if self._reference is None:
            return Check(name, "not run", "the CPU gave nothing to compare with")
        found = self._run(self._backend, "float32", tp=size)
        if found.get("error") == "InvalidParameterError":  # its heads cannot be shared so
            return Check(name, "not offered", found["text"])
        wrong = _error(found) or self._reference.wrong_tokens(found["answers"], "float32")
        return Check(name, "failed" if wrong else "passed", wrong)

    def soak(self, seconds: float) -> Section:
        """The same prompts over and over; nothing may change, fail or be left behind."""
        if seconds <= 0:
            return Section("soak", reason="soak_seconds is 0")
        if self._reference is None:
            return Section("soak", reason="the CPU gave nothing to compare with")
        section = Section("soak")
        for dtype in BOUNDS:
            found = self._run(self._backend, dtype, seconds=seconds / len(BOUNDS))
            wrong = _error(found)
            section.add(
                f"{dtype}/tokens", wrong or self._reference.wrong_tokens(found["answers"], dtype)
            )
            left = [
                f"{name}: expected 0, found {found[name]}"
                for name in ("kv_blocks_used", "failed_steps", "device_recoveries")
                if not wrong and found[name] != 0
            ]
            section.add(f"{dtype}/nothing_left_behind", wrong or "; ".join(left))
        return section

    def _run(
        self, backend: str, dtype: str, tp: int = 1, logits: str | None = None, seconds: float = 0.0
    ) -> dict[str, Any]:
        config = {
            "backend": backend,
            "dtype": dtype,
            "kv_cache_dtype": dtype,
            "compute_dtype": "float32" if dtype == "float32" else "auto",
            "num_kv_blocks": 64,
            "max_batch_size": 8,
            "tp": tp,
        }
        file = str(self._file(logits)) if logits else None
        return call(
            "answer",
            self._limit + seconds,
            model=self._path,
            config=config,
            tokens=TOKENS,
            logits=file,
            seconds=seconds,
        )

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.npz"

    def _load(self, name: str) -> Logits:
        import numpy as np

        with np.load(self._file(name)) as data:
            return [data[key] for key in data.files]


def _error(result: dict[str, Any]) -> str:
    return f"{result['error']}: {result['text']}" if "error" in result else ""

# SPDX-License-Identifier: Apache-2.0
"""All sections in order, and the report."""

from __future__ import annotations

import platform
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import manymind
from manymind.errors import InvalidParameterError
from manymind.validation import require_number
from manymind.verify.child import call
from manymind.verify.conformance import run_conformance
from manymind.verify.eight_heads import write_checkpoint
from manymind.verify.families import FILES, run_families
from manymind.verify.models import ModelChecks
from manymind.verify.outcomes import Check, Section, apply_divergences, read_divergences

SCHEMA = "manymind-verify-ascend/1"
EMULATOR = "contract-tested on an emulator; not yet run on hardware"
RANKS = (2, 4, 8)
_CHILD_LIMIT = 600.0  # seconds; a first run on a device compiles operators
_SUITE_LIMIT = 4 * 3600.0
_MOST_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True)
class VerifyOptions:
    """See ``manymind verify_ascend --help``."""

    conformance: str | None
    model: str | None
    large_model: str | None
    tests: str | None
    divergences: str | None
    op: str | None
    soak_seconds: float

    def validate(self) -> None:
        """Raises InvalidParameterError: nothing is to be found out after an hour."""
        require_number("soak_seconds", self.soak_seconds, 0.0, _MOST_SECONDS)
        if self.conformance is not None and not Path(self.conformance).is_file():
            raise InvalidParameterError(
                f"conformance: expected a program, found {self.conformance}"
            )
        for name in ("model", "large_model"):
            path = getattr(self, name)
            if path is not None and not Path(path).exists():
                raise InvalidParameterError(f"{name}: expected a checkpoint, found {path}")
        if self.tests is not None and not (Path(self.tests) / FILES[0]).is_file():
            raise InvalidParameterError(
                f"tests: expected the tests folder of a checkout, found {self.tests}"
            )
        if self.op is not None and self.conformance is None:
            raise InvalidParameterError("op: expected conformance to be given, too")


def verify(options: VerifyOptions, backend: str = "ascend") -> dict[str, Any]:
    """The report; docs/ascend.md describes its fields."""
    known = read_divergences(options.divergences)
    found = call("probe", _CHILD_LIMIT, backend=backend)
    plugin = found.get("plugin")
    device = plugin["device"] if plugin and plugin["usable"] else None
    sections = [_environment(found)]
    if plugin and device:
        sections += _device_sections(options, backend, plugin)
    else:
        names = ("conformance", "model", "large_model", "families", "graph", "hccl", "soak")
        sections += [Section(name, reason="there is no usable device") for name in names]
    soc = device["name"].split(" ")[0] if device else ""
    cann = device["arch"].removeprefix("CANN").strip() if device else ""
    apply_divergences(sections, known, soc, cann)
    where = ("emulator" if found["emulated"] else "device") if device else "nothing"
    return {
        "schema": SCHEMA,
        "ran_on": where,
        "statement": EMULATOR if where == "emulator" else f"run on {soc or 'no device'}",
        "manymind": manymind.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "soc": soc,
        "cann": cann,
        "plugin": plugin,
        "divergences": {"file": options.divergences, "entries": len(known)},
        "op": options.op,
        "sections": [section.as_json() for section in sections],
        "passed": bool(device) and all(section.outcome != "failed" for section in sections),
    }


def _environment(found: dict[str, Any]) -> Section:
    """Libraries, functions and versions, as the plug-in sees them."""
    section = Section("environment")
    section.add("plugin", f"{found['error']}: {found['text']}" if "error" in found else "")
    if "plugin" not in found:
        return section
    plugin = found["plugin"]
    section.add("libraries_and_functions", "" if plugin["usable"] else plugin["reason"])
    if plugin["usable"]:
        device = plugin["device"]
        version = device["arch"].removeprefix("CANN").strip()
        section.add("cann_version", "" if version else "CANN does not tell its version")
        missing = [x for x in ("f32", "bf16") if x not in device["activation_dtypes"]]
        section.add("dtypes", f"not offered: {', '.join(missing)}" if missing else "")
    return section


def _device_sections(options: VerifyOptions, backend: str, plugin: dict[str, Any]) -> list[Section]:
    device = plugin["device"]
    conformance = _conformance(options, plugin["path"])
    large = Section("large_model", reason="no large_model was given")
    if options.large_model is not None:
        with closing(ModelChecks(options.large_model, backend, _CHILD_LIMIT)) as checks:
            large = checks.model("large_model")
    families = Section("families", reason="no tests were given")
    if options.tests is not None:
        families = Section("families", run_families(options.tests, backend, _SUITE_LIMIT))
    hccl = _hccl(options, plugin, backend)
    if options.model is None:
        no_model = [Section(x, reason="no model was given") for x in ("model", "graph", "soak")]
        model, graph, soak = no_model
    else:
        with closing(ModelChecks(options.model, backend, _CHILD_LIMIT)) as checks:
            model = checks.model("model")
            graph = checks.graph(device["graph_capture"])
            soak = checks.soak(options.soak_seconds)
    return [conformance, model, large, families, graph, hccl, soak]


def _conformance(options: VerifyOptions, plugin: str) -> Section:
    """Twice: whether rows depend on others of their call is for the device to show."""
    if options.conformance is None:
        return Section("conformance", reason="no conformance runner was given")
    part = ("--op", options.op) if options.op else ()
    program = options.conformance
    fixed = ("--config", "deterministic=1", *part)
    checks = run_conformance(program, plugin, "", _SUITE_LIMIT, *part)
    checks += run_conformance(program, plugin, "deterministic=1/", _SUITE_LIMIT, *fixed)
    return Section("conformance", checks)


def _hccl(options: VerifyOptions, plugin: dict[str, Any], backend: str) -> Section:
    """Collectives alone, and a model on as many ranks, as far as there are devices."""
    count = plugin["device"]["count"]
    if count < RANKS[0]:
        return Section("hccl", reason=f"{count} device")
    section = Section("hccl")
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(ModelChecks(folder, backend, _CHILD_LIMIT)) as model,
    ):
        write_checkpoint(Path(folder))
        section.add("cpu_reference", model.prepare())
        _check_ranks(options, plugin, model, section)
    return section


def _check_ranks(
    options: VerifyOptions, plugin: dict[str, Any], model: ModelChecks, section: Section
) -> None:
    count = plugin["device"]["count"]
    for size in RANKS:
        if count < size:
            reason = f"{size} ranks want {size} devices, found {count}"
            section.checks.append(Check(f"ranks{size}", "not run", reason))
            continue
        if options.conformance is not None:
            part = ("--op", "collectives", "--case", f"_ranks{size}")
            section.checks += run_conformance(
                options.conformance, plugin["path"], "", _CHILD_LIMIT, *part
            )
        section.checks.append(model.ranks(size))

# SPDX-License-Identifier: Apache-2.0
"""``manymind check_env``: what a bug report needs."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import manymind
from manymind.environment import home_folder
from manymind.native import plugin_paths


def run(as_json: bool) -> None:
    """Prints the report as text or JSON."""
    report = environment_report()
    print(json.dumps(report, indent=2) if as_json else _as_text(report))


def environment_report() -> dict[str, Any]:
    """Versions, machine and plug-ins."""
    from manymind import _turbomind

    return {
        "manymind": manymind.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _version(name) for name in _dependencies()},
        "home": str(home_folder()),
        "backends": _turbomind.list_plugins(plugin_paths()),
    }


def _dependencies() -> list[str]:
    """Names of the packages that the installed one declares, without those of its extras."""
    needed = [item for item in requires("manymind") or () if "extra ==" not in item]
    return [re.split(r"[^\w.-]", item, maxsplit=1)[0] for item in needed]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _as_text(report: dict[str, Any]) -> str:
    lines = [f"{key}: {report[key]}" for key in ("manymind", "python", "platform", "cpu_count")]
    lines += [f"{name}: {found or 'missing'}" for name, found in report["packages"].items()]
    lines.append(f"home: {report['home']}")
    lines.append("backends:" if report["backends"] else "backends: none found")
    for backend in report["backends"]:
        lines += _backend_lines(backend)
    return "\n".join(lines)


def _backend_lines(backend: dict[str, Any]) -> list[str]:
    state = "usable" if backend["usable"] else f"not usable: {backend['reason']}"
    lines = [f"  {backend['name'] or backend['path']} {backend['version']}: {state}"]
    if backend["usable"]:
        lines.append(f"    path: {backend['path']}")
        lines += [f"    {key}: {_value(key, value)}" for key, value in backend["device"].items()]
    return lines


def _value(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

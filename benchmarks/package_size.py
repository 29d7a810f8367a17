# SPDX-License-Identifier: Apache-2.0
"""Size of an installed Python package and of all it needs; run by that environment's Python.

    python benchmarks/package_size.py openvino-genai
    python benchmarks/package_size.py manymind --wheel dist/manymind.whl

Prints MiB installed and MiB of wheels, for the package alone and with its dependencies. Wheels are
fetched by pip into a temporary folder, the package's own one is read from `--wheel` if given.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_MIB = 1024 * 1024
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def closure(name: str) -> list[Distribution]:
    """The installed package and all its installed requirements, each once, `name` first."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        wanted = waiting.pop(0)
        key = re.sub(r"[-_.]+", "-", wanted).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(wanted)
        except PackageNotFoundError:
            if wanted == name:
                raise SystemExit(f"{name}: expected an installed package, found none") from None
            continue
        for requirement in found[key].requires or []:
            match = _NAME.match(requirement)
            if match and "extra ==" not in requirement:
                waiting.append(match.group())
    return list(found.values())


def installed_bytes(package: Distribution) -> int:
    """Bytes of the package's files on disk."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def wheel_bytes(package: Distribution) -> int:
    """Bytes of the package's wheel for this Python, as pip fetches it."""
    requirement = f"{package.metadata['Name']}=={package.version}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", folder, requirement], check=True)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def main(argv: Sequence[str]) -> None:
    """Print one line for the package alone and one with its dependencies."""
    parser = argparse.ArgumentParser(description="Measure an installed package's size.")
    parser.add_argument("package")
    parser.add_argument("--wheel", type=Path, help="the package's own wheel, if it is local")
    arguments = parser.parse_args(argv)
    packages = closure(arguments.package)
    installed = [installed_bytes(package) / _MIB for package in packages]
    own = arguments.wheel.stat().st_size if arguments.wheel else wheel_bytes(packages[0])
    wheels = [own / _MIB, *(wheel_bytes(package) / _MIB for package in packages[1:])]
    print(f"{arguments.package}: {installed[0]:.1f} MiB installed, {wheels[0]:.1f} MiB wheel")
    names = ", ".join(sorted(package.metadata["Name"] for package in packages[1:])) or "nothing"
    print(f"with {names}: {sum(installed):.1f} MiB installed, {sum(wheels):.1f} MiB wheels")


if __name__ == "__main__":
    main(sys.argv[1:])

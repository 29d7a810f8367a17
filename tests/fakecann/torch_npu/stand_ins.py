# SPDX-License-Identifier: Apache-2.0
"""Runs a command with the unmodified torch-npu wheel on the emulator: stand_ins.py FOLDER COMMAND.

The wheel is linked to libraries of CANN beside those that the emulator has (graph engine, old
operator compiler). For each symbol that it needs and that the emulator lacks, a stand-in is
compiled into FOLDER that ends the process and names itself, so that nothing passes by an empty
function; compile options and reports, which are only written, are the exception.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

EMULATOR = Path(__file__).resolve().parents[3] / "build/release/tests/fakecann/lib"
# Link-time libraries of the wheel that the emulator has none of.
OTHER_LIBRARIES = ("acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
# Told to, not asked: an answer of "done" is right, since nothing is compiled.
WRITTEN_ONLY = ("aclSetCompileopt", "aclAppLog", "aclmdlInitDump", "aclmdlFinalizeDump")
# Profiling is reported to nobody.
REPORTS = (
    "MsprofRegisterCallback",
    "MsprofReportApi",
    "MsprofReportCompactInfo",
    "MsprofReportAdditionalInfo",
    "MsprofGetHashId",
    "MsprofSysCycleTime",
)


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"{name} is not installed: make test-fakecann-torch-npu installs it")
    return Path(found.origin).parent


def symbols(library: Path, kind: str) -> set[str]:
    """Dynamic symbols that a library defines, or needs without a version of their own."""
    listing = subprocess.run(
        ["nm", "-D", f"--{kind}-only", str(library)], capture_output=True, text=True, check=True
    )
    found = set()
    for line in listing.stdout.splitlines():
        words = line.split()
        is_versioned = "@" in words[-1] and kind == "undefined"
        if not is_versioned and words[-2].lower() != "w":
            found.add(words[-1].split("@")[0])
    return found


def missing_symbols() -> list[str]:
    """What the wheel needs, of the C interfaces, and nothing here defines."""
    wheel, torch = package_folder("torch_npu"), package_folder("torch")
    own = [*wheel.glob("lib/libtorch_npu.so"), *wheel.glob("lib/libnpu_profiler.so")]
    needed = set().union(*(symbols(library, "undefined") for library in own))
    defined = [*own, *wheel.glob("lib/*.so"), *torch.glob("lib/*.so*"), *EMULATOR.glob("*.so")]
    needed -= set().union(*(symbols(library, "defined") for library in defined))
    return sorted(name for name in needed if name.startswith(("acl", "rt", "Msprof", "Hccl", "ge")))


def source(names: list[str]) -> str:
    """C code of the stand-ins."""
    lines = ["#include <stdio.h>", "#include <stdlib.h>"]
    for name in sorted({*names, *WRITTEN_ONLY, *REPORTS}):
        if name in WRITTEN_ONLY or name in REPORTS:
            lines.append(f"int {name}(void) {{ return 0; }}")
        else:
            text = f"{name} has only a stand-in"
            lines.append(f'int {name}(void) {{ fprintf(stderr, "{text}\\n"); abort(); }}')
    return "\n".join(lines) + "\n"


def build(folder: Path) -> None:
    """The stand-ins' libraries, and the folders that the wheel looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("runtime", "compiler", "opp"):
        (folder / "cann" / part).mkdir(parents=True, exist_ok=True)
    code = folder / "stand_ins.c"
    code.write_text(source(missing_symbols()), encoding="utf-8")
    emulator = [f"-L{EMULATOR}", "-Wl,--no-as-needed", "-lacl_rt", "-lnnopbase"]
    emulator.append(f"-Wl,-rpath,{EMULATOR}")
    for name in OTHER_LIBRARIES:
        target = folder / f"lib{name}.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", str(code), "-o", str(target), *emulator], check=True
        )


def main() -> None:
    """Builds, then becomes the command."""
    folder, command = Path(sys.argv[1]).resolve(), sys.argv[2:]
    build(folder)
    os.environ.update(
        LD_LIBRARY_PATH=f"{EMULATOR}:{folder}",
        ASCEND_HOME_PATH=str(folder / "cann"),
        ASCEND_OPP_PATH=str(folder / "cann/opp"),
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
        TASK_QUEUE_ENABLE="0",  # operators are called where the test calls them
    )
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Our declarations against the headers in torch-npu's wheel: compiled side by side, by type.

The wheel is installed for the test and nothing of it is kept. Enumerations count as int, which is
how the C interface passes them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from stand_ins import package_folder

ABI = Path(__file__).resolve().parents[1] / "abi"
PROLOGUE = """
#include <acl/acl.h>
#include <hccl/hccl.h>
#include <type_traits>
template <typename T> struct AsInt {
  using type = std::conditional_t<std::is_enum_v<T>, int, T>;
};
template <typename T> struct AsInt<T*> {
  using type = typename AsInt<T>::type*;
};
template <typename T> struct AsInt<const T> {
  using type = const typename AsInt<T>::type;
};
template <typename F> struct Plain;
template <typename R, typename... A> struct Plain<R(A...)> {
  using type = typename AsInt<R>::type(typename AsInt<A>::type...);
};
"""
# Operators that no part of the wheel calls; their documents are named in contracts/.
NOT_CALLED = {"QuantMatmulV4", "TransMatmulWeight"}


def prototypes(header: str) -> dict[str, str]:
    """Name and type of each function of one of our headers."""
    text = re.sub(r"/\*.*?\*/", "", (ABI / header).read_text(encoding="utf-8"), flags=re.DOTALL)
    found = {}
    for result, name, parameters in re.findall(
        r"^((?:const char\*)|aclError|HcclResult) (\w+)\(((?:[^()]|\([^()]*\))*)\);",
        text,
        re.MULTILINE,
    ):
        found[name] = f"{result}({' '.join(parameters.split())})".replace("struct ", "")
    return found


def compiles(source: str, folder: Path) -> str:
    """What the compiler objects to, if anything."""
    include = package_folder("torch_npu") / "include"
    code = folder / "check.cc"
    code.write_text(source, encoding="utf-8")
    includes = [
        f"-I{include}",
        *(f"-I{include / 'third_party' / p / 'inc'}" for p in ("acl", "hccl")),
    ]
    done = subprocess.run(
        ["c++", "-std=c++17", "-fsyntax-only", "-w", *includes, str(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def check(name: str, own: str) -> str:
    theirs, ours = f"Plain<decltype({name})>::type", f"Plain<{own}>::type"
    return f'static_assert(std::is_same_v<{theirs}, {ours}>, "{name}");\n'


def test_our_declarations_have_the_types_of_the_wheels_headers(tmp_path: Path) -> None:
    own = prototypes("runtime.h") | prototypes("hccl.h")
    assert len(own) > 80
    lines = [check(name, kind) for name, kind in own.items()]
    assert compiles(PROLOGUE + "".join(lines), tmp_path) == ""


def test_a_wrong_declaration_does_not_compile(tmp_path: Path) -> None:
    wrong = check("aclrtMalloc", "aclError(void**, uint32_t, int)")
    assert "aclrtMalloc" in compiles(PROLOGUE + wrong, tmp_path)


def test_the_wheel_knows_every_operator_by_its_name() -> None:
    text = (ABI / "ops.h").read_text(encoding="utf-8")
    names = re.findall(r"^FAKECANN_DECLARE\((\w+)", text, re.MULTILINE)
    libraries = (package_folder("torch_npu") / "lib").glob("*.so")
    known = set().union(*(re.findall(rb"aclnn(\w+)", path.read_bytes()) for path in libraries))
    unknown = {name for name in names if name.encode() not in known}
    assert unknown == NOT_CALLED

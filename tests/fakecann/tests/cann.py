# SPDX-License-Identifier: Apache-2.0
"""A ctypes client of the emulator: what a C program would call, with numpy arrays for data.

Argument types come from the declarations in ``abi/``: a wrong type fails here, not in a register.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
LIBRARIES = Path(
    os.environ.get("FAKECANN_LIB", HERE.parents[1] / "build/release/tests/fakecann/lib")
)

DTYPES = {
    "f32": (0, np.float32),
    "f16": (1, np.float16),
    "i8": (2, np.int8),
    "i32": (3, np.int32),
    "u8": (4, np.uint8),
    "i16": (6, np.int16),
    "u16": (7, np.uint16),
    "u32": (8, np.uint32),
    "i64": (9, np.int64),
    "u64": (10, np.uint64),
    "f64": (11, np.float64),
    "bool": (12, np.bool_),
    "bf16": (27, np.uint16),
    "i4": (29, np.uint8),
}
ND, NZ = 2, 29
H2D, D2H, D2D = 1, 2, 3


class CannError(Exception):
    """A call that did not answer 0."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"[{code}] {text}")
        self.code = code
        self.text = text


def to_storage(values: Any, dtype: str) -> np.ndarray:
    """The bytes of values in a dtype, as an array of its storage type."""
    array = np.asarray(values)
    if dtype == "bf16":
        bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype == "i4":
        flat = array.astype(np.int8).reshape(-1) & 15
        return (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8)
    return array.astype(DTYPES[dtype][1])


def from_storage(array: np.ndarray, dtype: str) -> np.ndarray:
    """What the storage of a dtype means."""
    if dtype == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def dense_strides(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


@dataclass
class Tensor:
    """Device memory and a description of it."""

    handle: int
    address: int
    shape: tuple[int, ...]
    dtype: str
    size: int  # bytes


@dataclass
class Signature:
    """Names and ctypes of an operator's parameters."""

    names: list[str] = field(default_factory=list)
    types: list[Any] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)  # the C types' names


def _ctype(declaration: str) -> Any:
    if "char" in declaration:
        return ctypes.c_char_p
    if "*" in declaration or re.match(r"Fake(In|Ins|Scalar|Ints)\b", declaration):
        return ctypes.c_void_p
    for word, kind in (
        ("int64_t", ctypes.c_int64),
        ("int8_t", ctypes.c_int8),
        ("double", ctypes.c_double),
        ("bool", ctypes.c_bool),
    ):
        if word in declaration:
            return kind
    return ctypes.c_int


def read_signatures() -> dict[str, Signature]:
    """Every operator that abi/ops.h declares."""
    text = (HERE / "abi/ops.h").read_text(encoding="utf-8").replace("\\\n", " ")
    macros = dict(re.findall(r"#define (FAKECANN_ATTENTION_\w+)\s+(.*)", text))
    found = {}
    for name, body in re.findall(r"^FAKECANN_DECLARE\((\w+),\s*([^)]*)\)", text, re.MULTILINE):
        for macro in re.findall(r"FAKECANN_ATTENTION_\w+", body):
            body = re.sub(rf"\b{macro}\b", macros[macro], body)
        signature = Signature()
        for parameter in body.split(","):
            parameter = " ".join(parameter.split())
            signature.names.append(parameter.replace("*", " ").split()[-1])
            signature.types.append(_ctype(parameter))
            signature.declared.append(parameter.replace("const ", "").split()[0].rstrip("*"))
        found[name] = signature
    return found


SIGNATURES = read_signatures()


class Cann:
    """The libraries, loaded once a process."""

    def __init__(self) -> None:
        def load(name: str) -> ctypes.CDLL:
            return ctypes.CDLL(str(LIBRARIES / name), mode=ctypes.RTLD_GLOBAL)

        self.acl = load("libascendcl.so")
        self.nnop = load("libnnopbase.so")
        self.opapi = load("libopapi.so")
        self.hccl = load("libhccl.so")
        self.acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
        self.acl.aclrtGetSocName.restype = ctypes.c_char_p
        for name in ("aclCreateTensor", "aclCreateScalar", "aclCreateIntArray"):
            getattr(self.nnop, name).restype = ctypes.c_void_p
        self.nnop.aclCreateTensorList.restype = ctypes.c_void_p
        for name in ("fakecannRules", "fakecannRulesThatRefused"):
            getattr(self.nnop, name).restype = ctypes.c_char_p
        self.check(self.acl.aclInit(None))
        self.set_device(0)

    def check(self, code: int) -> None:
        """Raises what the emulator refused."""
        if code != 0:
            raise CannError(code, self.acl.aclGetRecentErrMsg().decode())

    def configure(self, **settings: Any) -> None:
        """As the environment's FAKECANN_* would."""
        for name, value in settings.items():
            self.check(self.acl.fakecannConfigure(name.upper().encode(), str(value).encode()))

    def set_device(self, device: int) -> None:
        self.check(self.acl.aclrtSetDevice(device))

    def live(self, kind: str) -> int:
        count = ctypes.c_uint64()
        self.check(self.acl.fakecannLiveObjects(kind.encode(), ctypes.byref(count)))
        return count.value

    # Memory.

    def malloc(self, size: int) -> int:
        pointer = ctypes.c_void_p()
        self.check(self.acl.aclrtMalloc(ctypes.byref(pointer), ctypes.c_size_t(size), 0))
        return int(pointer.value or 0)

    def free(self, address: int) -> None:
        self.check(self.acl.aclrtFree(ctypes.c_void_p(address)))

    def pinned(self, size: int) -> np.ndarray:
        """Host memory of aclrtMallocHost, as bytes."""
        pointer = ctypes.c_void_p()
        self.check(self.acl.aclrtMallocHost(ctypes.byref(pointer), ctypes.c_size_t(size)))
        buffer = (ctypes.c_uint8 * size).from_address(int(pointer.value or 0))
        return np.frombuffer(buffer, dtype=np.uint8)

    def copy(self, to: Any, source: Any, size: int, kind: int, stream: int | None = -1) -> None:
        """Synchronous without a stream."""
        to, source = _address(to), _address(source)
        arguments = (
            ctypes.c_void_p(to),
            ctypes.c_size_t(size),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            kind,
        )
        if stream == -1:
            self.check(self.acl.aclrtMemcpy(*arguments))
        else:
            self.check(self.acl.aclrtMemcpyAsync(*arguments, ctypes.c_void_p(stream)))

    # Streams and events.

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        self.check(self.acl.aclrtCreateStream(ctypes.byref(handle)))
        return int(handle.value or 0)

    def event(self, flags: int = 1) -> int:
        handle = ctypes.c_void_p()
        self.check(self.acl.aclrtCreateEventExWithFlag(ctypes.byref(handle), flags))
        return int(handle.value or 0)

    def synchronize(self, stream: int | None) -> None:
        self.check(self.acl.aclrtSynchronizeStream(ctypes.c_void_p(stream)))

    def record(self, event: int, stream: int) -> None:
        self.check(self.acl.aclrtRecordEvent(ctypes.c_void_p(event), ctypes.c_void_p(stream)))

    def wait(self, stream: int, event: int) -> None:
        self.check(self.acl.aclrtStreamWaitEvent(ctypes.c_void_p(stream), ctypes.c_void_p(event)))

    # Descriptions.

    def describe(
        self,
        address: int,
        shape: Sequence[int],
        dtype: str,
        strides: Sequence[int] | None = None,
        offset: int = 0,
        layout: int = ND,
        storage: Sequence[int] | None = None,
    ) -> int:
        """aclCreateTensor; 0 when it refuses."""
        strides = list(strides) if strides is not None else dense_strides(shape)
        storage = list(storage) if storage is not None else list(shape)
        int64s = [(ctypes.c_int64 * len(part))(*part) for part in (shape, strides, storage)]
        handle = self.nnop.aclCreateTensor(
            int64s[0],
            ctypes.c_uint64(len(shape)),
            DTYPES[dtype][0],
            int64s[1],
            ctypes.c_int64(offset),
            layout,
            int64s[2],
            ctypes.c_uint64(len(storage)),
            ctypes.c_void_p(address),
        )
        return handle or 0

    def tensor(self, values: Any, dtype: str, **description: Any) -> Tensor:
        """Uploads values and describes them."""
        data = to_storage(values, dtype)
        shape = tuple(description.pop("shape", np.asarray(values).shape))
        # aclrtMalloc promises 32 bytes after the data, and a 64-byte start.
        address = self.malloc(max(data.nbytes, 1))
        if data.nbytes:
            contiguous = np.ascontiguousarray(data)
            self.copy(address, contiguous, data.nbytes, H2D)
        handle = self.describe(address, shape, dtype, **description)
        return Tensor(handle, address, shape, dtype, data.nbytes)

    def read(self, tensor: Tensor) -> np.ndarray:
        """The dense contents."""
        out = np.empty(
            tensor.size // np.dtype(DTYPES[tensor.dtype][1]).itemsize, DTYPES[tensor.dtype][1]
        )
        if tensor.size:
            self.copy(out, tensor.address, tensor.size, D2H)
        shape = tensor.shape if out.size == int(np.prod(tensor.shape)) else out.shape
        return from_storage(out, tensor.dtype).reshape(shape)

    def scalar(self, value: float | int, dtype: str) -> int:
        data = to_storage(np.array([value]), dtype)
        return int(self.nnop.aclCreateScalar(_pointer(data), DTYPES[dtype][0]))

    def ints(self, values: Sequence[int]) -> int:
        array = (ctypes.c_int64 * max(len(values), 1))(*values)
        return int(self.nnop.aclCreateIntArray(array, ctypes.c_uint64(len(values))))

    def list_of(self, handles: Sequence[int]) -> int:
        array = (ctypes.c_void_p * max(len(handles), 1))(*handles)
        return int(self.nnop.aclCreateTensorList(array, ctypes.c_uint64(len(handles))))

    # Operators.

    def plan(self, op: str, *arguments: Any) -> tuple[int, int]:
        """Phase 1: the workspace's size and the executor."""
        function = getattr(self.opapi, f"aclnn{op}GetWorkspaceSize")
        types = SIGNATURES[op].types
        assert len(types) == len(arguments), (op, len(types), len(arguments))
        size, executor = ctypes.c_uint64(), ctypes.c_void_p()
        converted = [_convert(kind, value) for kind, value in zip(types, arguments, strict=True)]
        self.check(function(*converted, ctypes.byref(size), ctypes.byref(executor)))
        return size.value, int(executor.value or 0)

    def launch(self, op: str, workspace: int, size: int, executor: int, stream: int | None) -> None:
        """Phase 2."""
        function = getattr(self.opapi, f"aclnn{op}")
        self.check(
            function(
                ctypes.c_void_p(workspace),
                ctypes.c_uint64(size),
                ctypes.c_void_p(executor),
                ctypes.c_void_p(stream),
            )
        )

    def spoil(self, tensor: Tensor) -> None:
        """Overwrites the contents."""
        if tensor.size:
            self.copy(tensor.address, np.full(tensor.size, 0x7F, np.uint8), tensor.size, H2D)

    def rebind(self, executor: int, position: int, described: Tensor, other: Tensor) -> None:
        """aclSetTensorAddr: where another tensor lies."""
        self.check(
            self.nnop.aclSetTensorAddr(
                ctypes.c_void_p(executor),
                ctypes.c_size_t(position),
                ctypes.c_void_p(described.handle),
                ctypes.c_void_p(other.address),
            )
        )

    def enqueue(self, stream: int | None, op: str, *arguments: Any) -> int:
        """Both phases, the workspace left allocated; its address."""
        size, executor = self.plan(op, *arguments)
        workspace = self.malloc(max(size, 1))
        self.launch(op, workspace, size, executor, stream)
        return workspace

    def run(self, op: str, *arguments: Any) -> None:
        """Both phases on the default stream, waited for."""
        workspace = self.enqueue(None, op, *arguments)
        self.synchronize(None)
        self.free(workspace)

    def rules(self) -> set[str]:
        return set(self.nnop.fakecannRules().decode().splitlines())

    def refusals(self) -> set[str]:
        return set(self.nnop.fakecannRulesThatRefused().decode().splitlines())


def _address(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return int(value.ctypes.data)
    return value.address if isinstance(value, Tensor) else int(value)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _convert(kind: Any, value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.handle
    if kind is ctypes.c_void_p:
        return ctypes.c_void_p(value or None)
    if kind is ctypes.c_char_p:
        return ctypes.c_char_p(None if value is None else value.encode())
    return kind(value)


_loaded: list[Cann] = []


def cann() -> Cann:
    """The process's client."""
    if not _loaded:
        _loaded.append(Cann())
    return _loaded[0]


def refused(code: int, call: Callable[[], Any]) -> str:
    """Expects a refusal with this code; its text."""
    try:
        call()
    except CannError as error:
        if error.code != code:
            raise
        return error.text
    raise AssertionError(f"expected code {code}, found success")

"""The published prompts of Q16, read from their pickle without trusting it.

ml-research/Q16 ships the two learned prompts as ``prompts.p``, the pickle of one NumPy array. A
pickle is a program: opening one in the usual way runs what it says. Three things keep that from
happening here:

1. All opcodes and all names are looked at before any of them has an effect, and must be among the
   few that a numeric array needs.
2. The allowed names do not stand for NumPy's functions but for the small stand-ins below, which
   take nothing but what an array of floats is made of.
3. The bytes become an array only after dtype, shape and length have been found to agree.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE = "data/ViT-L-14/prompts.p of github.com/ml-research/Q16"
# Two prompts of 768 float16 numbers are 3 kB; no CLIP embedding is wider than a few thousand.
LARGEST_BYTES = 1 << 18

# What NumPy writes under protocols 2 and 3. Others are left out for a reason: extension codes and
# persistent ids name objects behind find_class's back, LONG_BINPUT and FRAME reserve memory of any
# size, and with a dictionary BUILD sets attributes of anything.
_OPCODES = (
    {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPUT", "BINGET"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"}
    | {"BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
)
_ITEM_BYTES = {"f2": 2, "f4": 4, "f8": 8}


def read_q16_pickle(path: Path) -> tuple[NDArray[np.float32], str]:
    """Read the prompts that ml-research/Q16 publishes; nothing in the file is run.

    Args:
        path: pickle (protocol 2 or 3) of one array of floats ``[2, D]``; row 0 is the appropriate
            prompt, row 1 the inappropriate one.

    Returns:
        The prompts, float32 ``[2, D]``, of the length they have in the file (Q16 compares
        directions only), and the SHA-256 of the file, 64 hex digits.

    Raises:
        ValueError: there is no such file, or it holds, or would do, anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no Q16 prompts at '{path}'; put {SOURCE} there")
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    try:
        _scan(content)
        prompts = _prompts(_Reader(io.BytesIO(content)).load())
    except Exception as error:  # a broken pickle fails in many ways, and is refused in one
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"'{path}' is not the pickle of Q16's prompts: {reason}; bring {SOURCE}"
        ) from error
    return prompts, hashlib.sha256(content).hexdigest()


def _scan(content: bytes) -> None:
    """Refuse whatever an array does not need, before any of it is run."""
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
    refused, strings, end = None, ["?", "?"], 0
    for opcode, argument, position in pickletools.genops(content):
        end = (position or 0) + 1
        if opcode.name in ("GLOBAL", "INST") and argument not in _STAND_INS:
            raise ValueError(f"it names '{str(argument)[:80]}', which no array needs")
        if opcode.name == "STACK_GLOBAL":
            # The two strings read last are the name, unless the file hides it.
            name = " ".join(strings)
            raise ValueError(f"it names '{name}' as protocol 4 does; only 2 and 3 are read")
        if isinstance(argument, str):
            strings = [strings[1], argument[:80]]
        if opcode.name not in _OPCODES:
            refused = refused or f"opcode {opcode.name} at byte {position} is not one it needs"
    if refused:
        raise ValueError(refused)
    if end != len(content):
        raise ValueError(f"it goes on for {len(content) - end} bytes after its end")


class _Dtype:
    """Stands for ``numpy.dtype``: a float of 2, 4 or 8 bytes."""

    def __init__(self, code: Any, *_: Any) -> None:
        # Types first: hashing or printing tuples that hold each other many times takes for ever.
        if type(code) is not str or code not in _ITEM_BYTES:
            shown = f"'{code[:20]}'" if type(code) is str else type(code).__name__
            raise ValueError(f"its dtype is {shown}, expected one of {sorted(_ITEM_BYTES)}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if type(order) is not str or order not in ("<", ">"):
            raise ValueError("its dtype has no byte order")
        self.order = order


class _Array:
    """Stands for an array that gets its shape, dtype and bytes later, as NumPy's do."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[np.floating] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or type(data) is not bytes or type(fortran) is not bool:
            raise ValueError("its array is not one of floats")
        if type(shape) is not tuple or any(type(size) is not int for size in shape):
            raise ValueError("its array has no shape")
        if len(shape) != 2 or shape[0] != 2 or shape[1] < 1:
            raise ValueError(f"its array has shape {shape[:5]}, expected [2, D]")
        if 2 * shape[1] * _ITEM_BYTES[dtype.code] != len(data):
            raise ValueError(f"{len(data)} bytes are no array {shape} of {dtype.code}")
        flat = np.frombuffer(data, dtype.order + dtype.code)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, codec: Any) -> bytes:
    """Stands for ``_codecs.encode``, by which protocol 2 writes bytes."""
    if type(text) is not str or type(codec) is not str or codec != "latin1":
        raise ValueError("it encodes other than as latin1")
    return text.encode("latin1")


_STAND_INS = {
    "numpy ndarray": None,  # only ever an argument of _reconstruct, which takes no notice
    "numpy dtype": _Dtype,
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy._core.multiarray _reconstruct": _Array,
    "_codecs encode": _encode,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        return _STAND_INS[f"{module} {name}"]


def _prompts(array: Any) -> NDArray[np.float32]:
    """The values of an array, if they can be prompts."""
    if type(array) is not _Array or array.values is None:
        raise ValueError("it holds no array")
    with np.errstate(over="ignore"):
        prompts = np.ascontiguousarray(array.values, np.float32)
    if not np.isfinite(prompts).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(prompts))} of its numbers are not finite")
    if not prompts.any(axis=1).all():
        raise ValueError("one of its prompts is zero, and has no direction")
    return prompts

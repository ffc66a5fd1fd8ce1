"""MKL's Fourier transforms for compiled loops: the functions that torch itself calls, found in the library that holds them.

A transform called from Python takes a chunk of windows at a time, or the calls cost more than the work; then no pass finds in a core's own
cache what the one before it wrote. Called from a compiled loop a window goes through all passes while it is there.

torch shows these functions where it is built with MKL for Linux; elsewhere there are none, and torch transforms chunks.
"""

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# From mkl_dfti.h: names of settings and their values.
_COMPLEX, _FORWARD_SCALE, _BACKWARD_SCALE, _PLACEMENT, _THREAD_LIMIT, _ELSEWHERE = 32, 4, 5, 11, 27, 44


@dataclass(frozen=True)
class Transform:
    """Orthonormal two-dimensional transforms of one window into another, on one thread; any number of threads may use it at once.

    Attributes:
        plan: address of MKL's descriptor.
        forward: address of the function that transforms.
        backward: address of the one that transforms back.
    """

    plan: int
    forward: int
    backward: int


@cache
def transform(shape: tuple[int, int], dtype: torch.dtype) -> Transform | None:
    """The transform of complex windows of a shape, or None where there is no MKL that can be called."""
    library = _library()
    if library is None or dtype not in (torch.complex64, torch.complex128):
        return None
    plan, scale = ctypes.c_void_p(), ctypes.c_double(1 / math.sqrt(math.prod(shape)))
    create = library.DftiCreateDescriptor_s_md if dtype == torch.complex64 else library.DftiCreateDescriptor_d_md
    failed = create(ctypes.byref(plan), _COMPLEX, ctypes.c_long(2), (ctypes.c_long * 2)(*shape))
    whole = {_PLACEMENT: ctypes.c_long(_ELSEWHERE), _THREAD_LIMIT: ctypes.c_long(1)}
    for name, value in {_FORWARD_SCALE: scale, _BACKWARD_SCALE: scale, **whole}.items():
        failed = failed or library.DftiSetValue(plan, name, value)
    if failed or library.DftiCommitDescriptor(plan) or plan.value is None:
        return None
    return Transform(plan.value, *(_address(f) for f in (library.DftiComputeForward, library.DftiComputeBackward)))


@intrinsic
def apply(context, function, plan, source, target):  # type: ignore[no-untyped-def]
    """Calls a function of a `Transform` with its plan on the arrays at two addresses; for compiled code."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word, word, word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.intp, types.intp, types.intp, types.intp), generate


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        for name in ("CreateDescriptor_s_md", "CreateDescriptor_d_md", "SetValue", "CommitDescriptor", "ComputeForward", "ComputeBackward"):
            getattr(library, f"Dfti{name}")
    except (OSError, AttributeError):
        return None
    return library


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]

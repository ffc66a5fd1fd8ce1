"""The compiled passes of a refinement: window by window, while it is in a core's own cache.

As in `adaptycho.reconstruct.kernels` complex numbers are pairs of real ones, and every number is held in the waves' own precision. `psi` is
the exit wave of a mode, `far` its transform at the detector, `chi` the residual transformed back.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numba
from numba.extending import register_jitable

from adaptycho.reconstruct import Loss, losses, mkl
from adaptycho.reconstruct.kernels import add_imaginary, add_product, named_after
from adaptycho.reconstruct.losses.function import FAST

APART = 0.05  # relative difference of intensities that a loss's curvature is taken from
DARK = 1e-9  # intensity below which a curvature is that of this intensity

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
_part = register_jitable(error_model="numpy", fastmath=FAST)


class Loops(NamedTuple):
    """The passes compiled for a loss.

    Attributes:
        gradient: adds to the gradients of object and probe, and returns the summed loss.
        tangents: derivatives and curvatures of each pattern's loss along some directions.
    """

    gradient: Callable[..., float]
    tangents: Callable[..., None]


@_part
def _shifted(spectrum, row, column, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        s, o = spectrum[i], out[i]
        a, b = row[2 * i], row[2 * i + 1]
        for j in range(out.shape[1] // 2):
            re, im = 2 * j, 2 * j + 1
            c, d = a * column[re] - b * column[im], a * column[im] + b * column[re]
            o[re] = s[re] * c - s[im] * d
            o[im] = s[re] * d + s[im] * c


@_part
def _times(transmission, top, left, wave):  # type: ignore[no-untyped-def]
    for i in range(wave.shape[0]):
        t, o = transmission[top + i, 2 * left : 2 * left + wave.shape[1]], wave[i]
        for j in range(wave.shape[1] // 2):
            re, im = 2 * j, 2 * j + 1
            a, b = o[re], o[im]
            o[re] = a * t[re] - b * t[im]
            o[im] = a * t[im] + b * t[re]


@_part
def _times_conjugate(transmission, top, left, wave):  # type: ignore[no-untyped-def]
    for i in range(wave.shape[0]):
        t, o = transmission[top + i, 2 * left : 2 * left + wave.shape[1]], wave[i]
        for j in range(wave.shape[1] // 2):
            re, im = 2 * j, 2 * j + 1
            a, b = o[re], o[im]
            o[re] = a * t[re] + b * t[im]
            o[im] = b * t[re] - a * t[im]


@_part
def _to_probe(wave, row, column, gradient):  # type: ignore[no-untyped-def]
    for i in range(wave.shape[0]):
        w, g = wave[i], gradient[i]
        a, b = row[2 * i], row[2 * i + 1]
        for j in range(wave.shape[1] // 2):
            re, im = 2 * j, 2 * j + 1
            c, d = a * column[re] - b * column[im], a * column[im] + b * column[re]
            g[re] += w[re] * c + w[im] * d
            g[im] += w[im] * c - w[re] * d


@_part
def _summed(far, intensity):  # type: ignore[no-untyped-def]
    for m in range(len(far)):
        wave = far[m].reshape(far[m].size)
        if m == 0:
            for j in range(len(intensity)):
                intensity[j] = wave[2 * j] * wave[2 * j] + wave[2 * j + 1] * wave[2 * j + 1]
        else:
            for j in range(len(intensity)):
                intensity[j] += wave[2 * j] * wave[2 * j] + wave[2 * j + 1] * wave[2 * j + 1]


@_part
def _turned(spectrum, direction, out):  # type: ignore[no-untyped-def]
    s, d, o = spectrum.reshape(spectrum.size), direction.reshape(direction.size), out.reshape(out.size)
    for j in range(len(d)):
        o[2 * j], o[2 * j + 1] = -d[j] * s[2 * j + 1], d[j] * s[2 * j]


@_part
def _change(far, moved, out):  # type: ignore[no-untyped-def]
    f, v = far.reshape(far.size), moved.reshape(moved.size)
    two = type(f[0])(2)
    for j in range(len(out)):
        out[j] += two * (f[2 * j] * v[2 * j] + f[2 * j + 1] * v[2 * j + 1])


@cache
def loops(loss: Loss) -> Loops:
    """The passes compiled for a loss."""
    pixel, raised, added = (chosen := losses.load(loss)).pixel, chosen.raised, chosen.background > 0

    @_part
    def compared(far, intensity, pattern, scale, share, weight, background):  # type: ignore[no-untyped-def]
        real = type(scale)
        total, more = real(0), background * scale if added else real(0)
        _summed(far, intensity)
        for j in range(len(pattern)):
            value, factor = pixel(intensity[j] + more, scale * real(pattern[j]) + more, weight[j])
            total += value
            intensity[j] = share * factor
        for m in range(len(far)):
            wave = far[m].reshape(far[m].size)
            for j in range(len(pattern)):
                wave[2 * j] *= intensity[j]
                wave[2 * j + 1] *= intensity[j]
        return share * total

    def gradient(  # type: ignore[no-untyped-def]
        plan, forward, backward, spectra, focus, rows, columns, corner, patterns, scale, share, transmission, weight, background,
        psi, far, chi, intensity, to_object, to_probe,
    ):  # fmt: skip
        total = 0.0
        modes = spectra.shape[1]
        for k in range(len(patterns)):
            top, left, u = corner[k, 0], corner[k, 1], focus[k]
            for m in range(modes):
                _shifted(spectra[u, m], rows[k], columns[k], chi)
                mkl.apply(backward, plan, chi.ctypes.data, psi[m].ctypes.data)  # type: ignore[call-arg]
                _times(transmission, top, left, psi[m])
                mkl.apply(forward, plan, psi[m].ctypes.data, far[m].ctypes.data)
            total += compared(far, intensity, patterns[k], scale[k], share[k], weight, background) / raised
            for m in range(modes):
                mkl.apply(backward, plan, far[m].ctypes.data, chi.ctypes.data)  # type: ignore[call-arg]
                if to_object.shape == transmission.shape:
                    add_product(psi[m : m + 1], chi.reshape(1, *chi.shape), corner[k : k + 1], to_object)
                else:
                    add_imaginary(psi[m : m + 1], chi.reshape(1, *chi.shape), corner[k : k + 1], to_object)
                if len(to_probe):
                    _times_conjugate(transmission, top, left, chi)
                    mkl.apply(forward, plan, chi.ctypes.data, far[m].ctypes.data)
                    _to_probe(far[m], rows[k], columns[k], to_probe[u, m])
        return total

    def tangents(  # type: ignore[no-untyped-def]
        plan, forward, backward, spectra, focus, rows, columns, corner, patterns, scale, share, transmission, weight, background,
        directions, psi, far, chi, intensity, changes, slopes, curvatures,
    ):  # fmt: skip
        real = type(scale[0])
        count = len(directions)
        for k in range(len(patterns)):
            top, left, u = corner[k, 0], corner[k, 1], focus[k]
            changes[:] = 0
            for m in range(spectra.shape[1]):
                _shifted(spectra[u, m], rows[k], columns[k], psi[0])
                mkl.apply(backward, plan, psi[0].ctypes.data, chi.ctypes.data)  # type: ignore[call-arg]
                _times(transmission, top, left, chi)
                mkl.apply(forward, plan, chi.ctypes.data, far[m].ctypes.data)
                for d in range(count):
                    _turned(psi[0], directions[d], chi)
                    mkl.apply(backward, plan, chi.ctypes.data, psi[1].ctypes.data)
                    _times(transmission, top, left, psi[1])
                    mkl.apply(forward, plan, psi[1].ctypes.data, chi.ctypes.data)
                    _change(far[m], chi, changes[d])
            _summed(far, intensity)
            more = background * scale[k] if added else real(0)
            slope, curvature = slopes[k], curvatures[k]
            for j in range(len(intensity)):
                changes[count, j] = real(2) * intensity[j]
                level = intensity[j] + more
                factor = pixel(level, scale[k] * real(patterns[k, j]) + more, weight[j])[1]
                level += real(DARK)
                bend = pixel(level * real(1 + APART), level, weight[j])[1] / (real(APART) * level)
                for a in range(count + 1):
                    slope[a] += factor * changes[a, j]
                    for b in range(a + 1):
                        curvature[a, b] += bend * changes[a, j] * changes[b, j]
            for a in range(count + 1):
                slope[a] *= share[k]
                for b in range(a + 1):
                    curvature[a, b] *= share[k]
                    curvature[b, a] = curvature[a, b]

    return Loops(*(_compiled(named_after(pixel, loop)) for loop in (gradient, tangents)))

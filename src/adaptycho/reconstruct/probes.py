"""The shifted probes of a scan, on a lattice of a fraction of a pixel, kept between calls.

A scan asks for the same probes again and again: at most (subpixel + 1)^2 of them at each defocus, whatever the number of positions. So each
is computed when it is first asked for, from nothing but the beam, the defocus and the shift: the same bits whatever else is asked for with
it or was before.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from adaptycho.physics.optics import Setup

KEPT_BYTES = 1 << 26  # a larger table is made anew at each call
KEPT_BEAMS = 4  # so many tables stay, those used last


@dataclass(frozen=True, eq=False)
class _Table:
    """What is known of the probes of one beam.

    Attributes:
        probes: in the order they were first asked for.
        slots: number of each data set's probe at each defocus in Å; only measured probes differ between data sets.
        entry: index into `probes` by slot, y and x; -1 where none has been asked for.
    """

    probes: Complex[Tensor, "M N N2"]
    slots: dict[tuple[int, float], int]
    entry: Int[Tensor, " E"]


_kept: OrderedDict[Hashable, _Table] = OrderedDict()
_lock = Lock()


def lookup(
    setup: Setup, defocus: Float[Tensor, "B K"], offset: Float[Tensor, "B K 2"], used: Bool[Tensor, "B K"], subpixel: int
) -> tuple[Complex[Tensor, "M N N2"], Int[Tensor, "B K"]]:
    """A table of probes, and which of them lights each used position: the one shifted by its offset, to the next 1/subpixel of a pixel.

    Raises:
        ValueError: the setup has measured probes, but not one for each data set.
    """
    items = 1 if setup.measured_probe is None or setup.measured_probe.ndim == 2 else len(setup.measured_probe)
    if items not in (1, len(defocus)):
        raise ValueError(f"measured_probe: expected one for each of {len(defocus)} data sets, got {items}")
    half = (subpixel + 1) // 2
    side = 2 * half + 1
    values, which = torch.unique(defocus, return_inverse=True)
    if items > 1:
        which = which + len(values) * torch.arange(items, device=which.device)[:, None]
    asked = [(item, value) for item in range(items) for value in values.tolist()]
    step = (offset * subpixel).round().long() + half
    key = _beam(setup), subpixel, offset.dtype, offset.device
    with _lock:
        table = _opened(_kept.pop(key, None), asked, setup, side, offset)
        slot = torch.tensor([table.slots[one] for one in asked], device=which.device)[which]
        code = (slot * side + step[..., 0]) * side + step[..., 1]
        unknown = (table.entry[code] < 0) & used
        if bool(unknown.any()):
            table = _filled(table, torch.unique(code[unknown]), setup, subpixel)
        if table.probes.nbytes <= KEPT_BYTES:
            _kept[key] = table
        while len(_kept) > KEPT_BEAMS:
            _kept.popitem(last=False)
    return table.probes, table.entry[code]


def shifted(spectrum: Complex[Tensor, "N N2"], shift: Int[Tensor, "M 2"], subpixel: int) -> Complex[Tensor, "M N N2"]:
    """Probes of one spectrum, shifted by at most half a pixel (y, x), in 1/subpixel of a pixel, and centred in the window.

    A Fourier sum over the frequencies inside the aperture only, separable, as two matrix products: cheaper than M inverse transforms.
    """
    half = (subpixel + 1) // 2
    rows, columns = ((spectrum != 0).any(axis).nonzero()[:, 0] for axis in (1, 0))
    down, right = (_waves(n, k, subpixel).to(spectrum.dtype) for n, k in zip(spectrum.shape, (rows, columns), strict=True))
    # For every step along x, asked for or not, so that the product always has the same shape and rounds in the same way.
    across = spectrum[rows][:, columns] @ right.mT
    return torch.bmm(down[shift[:, 0] + half], across[shift[:, 1] + half])


def _beam(setup: Setup) -> Hashable:
    """All of a setup that its probes depend on, by value."""
    probe = setup.measured_probe
    measured = None if probe is None else (probe.shape, probe.dtype, probe.detach().cpu().numpy().tobytes())
    return setup.window, setup.semiangle, setup.wavelength, setup.aberrations, measured


def _opened(table: _Table | None, asked: list[tuple[int, float]], setup: Setup, side: int, like: Tensor) -> _Table:
    """The table with a slot for each of the probes asked for."""
    if table is None:
        none = torch.empty(0, *setup.window.shape, dtype=like.dtype.to_complex(), device=like.device)
        table = _Table(none, {}, torch.empty(0, dtype=torch.int64, device=like.device))
    slots = table.slots | {one: len(table.slots) + i for i, one in enumerate(x for x in asked if x not in table.slots)}
    more = table.entry.new_full(((len(slots) - len(table.slots)) * side**2,), -1)
    return _Table(table.probes, slots, torch.cat([table.entry, more]))


def _filled(table: _Table, codes: Int[Tensor, " M"], setup: Setup, subpixel: int) -> _Table:
    """The table with the probes of some more entries."""
    half = (subpixel + 1) // 2
    side = 2 * half + 1
    names, slots = list(table.slots), codes // side**2
    parts, spectra = [table.probes], dict[float, Tensor]()
    for slot in slots.unique().tolist():
        item, value = names[slot]
        if value not in spectra:
            spectra[value] = setup.spectra(torch.tensor([value], dtype=torch.float64, device=codes.device))[..., 0, :, :]
        spectrum = spectra[value][item] if spectra[value].ndim == 3 else spectra[value]
        mine = codes[slots == slot]
        shift = torch.stack([mine // side % side, mine % side], 1) - half
        parts.append(shifted(spectrum.to(table.probes.dtype), shift, subpixel))
    entry = table.entry.clone()
    entry[codes] = torch.arange(len(codes), device=codes.device) + len(table.probes)
    return _Table(torch.cat(parts), table.slots, entry)


def _waves(n: int, frequencies: Int[Tensor, " C"], subpixel: int) -> Complex[Tensor, "side N C"]:
    """exp(2 pi i k x) / sqrt(n) at each frequency k, on pixels x around a centre that is moved by each step of at most half a pixel."""
    half = (subpixel + 1) // 2
    # All phases are multiples of one angle, so they are looked up, exactly, instead of calculated.
    turn = torch.arange(n * subpixel, dtype=torch.float64, device=frequencies.device) * (2 * math.pi / (n * subpixel))
    roots = torch.polar(torch.ones_like(turn), turn) / math.sqrt(n)
    k = torch.where(frequencies < (n + 1) // 2, frequencies, frequencies - n)
    step = torch.arange(-half, half + 1, device=frequencies.device)
    x = (torch.arange(n, device=frequencies.device) - n // 2) * subpixel - step[:, None]
    return roots[(k * x[:, :, None]) % len(roots)]

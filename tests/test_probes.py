"""Shifted probes: right, kept between calls, and the same bits whatever was asked for with them or before."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup
from adaptycho.reconstruct import probes


def setup(**changes) -> Setup:
    given = {"field": (6.0, 6.0), "object": Grid((48, 44), 0.3), "window": Grid((24, 20), 0.3), "detector": (24, 20), "semiangle": 33.0}
    return Setup(**(given | {"energy": 60e3} | changes))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(probes, "_kept", OrderedDict())


def asked(seed: int, count: int, *, sets: int = 1, dtype: torch.dtype = torch.float32, foci: tuple[float, ...] = (40.0,)):
    """Defocus, offsets and use of some positions."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.rand(sets, count, 2, generator=generator, dtype=dtype) - 0.5
    focus = torch.tensor(foci, dtype=dtype)[torch.randint(len(foci), (sets, count), generator=generator)]
    return focus, offset, torch.ones(sets, count, dtype=torch.bool)


def found(given: Setup, *request, subpixel: int = 16) -> torch.Tensor:
    table, which = probes.lookup(given, *request, subpixel)
    return table[which]


@pytest.mark.parametrize("subpixel", [1, 3, 4, 16])
def test_a_probe_is_the_inverse_transform_of_its_spectrum(subpixel):
    """The Fourier sum over the aperture, at each defocus, at the nearest point of the lattice."""
    given = setup()
    focus, offset, used = asked(0, 60, dtype=torch.float64, foci=(0.0, 80.0))
    offset[0, :2] = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    expected = given.shift(given.spectra(focus[0]), (offset[0] * subpixel).round() / subpixel)
    # Unit-sum probes in double precision: 1e-14 is a hundred roundings.
    torch.testing.assert_close(found(given, focus, offset, used, subpixel=subpixel)[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_in_any_company(dtype):
    """One at a time, in a growing scan, all at once, and with other defoci and data sets."""
    given = setup()
    focus, offset, used = asked(1, 40, sets=2, dtype=dtype, foci=(40.0, 55.0))
    together = found(given, focus, offset, used)
    probes._kept.clear()
    for count in (1, 2, 7, 40):
        growing = found(given, focus[:1, :count], offset[:1, :count], used[:1, :count])
        assert torch.equal(growing[0], together[0, :count])
    for b, k in ((0, 3), (1, 0), (1, 39)):
        probes._kept.clear()
        alone = found(given, focus[b : b + 1, k : k + 1], offset[b : b + 1, k : k + 1], used[:1, :1])
        assert torch.equal(alone[0, 0], together[b, k])


def test_what_is_known_is_not_made_again(monkeypatch):
    made = []
    shifted = probes.shifted
    monkeypatch.setattr(probes, "shifted", lambda spectrum, shift, subpixel: made.append(len(shift)) or shifted(spectrum, shift, subpixel))
    given, request = setup(), asked(2, 30)
    first = found(given, *request)
    assert len(made) == 1
    assert torch.equal(found(given, *request), first)
    assert torch.equal(found(replace(given), *request), first)  # another setup of the same values
    assert len(made) == 1
    longer = [torch.cat([a, b], 1) for a, b in zip(request, asked(3, 5), strict=True)]
    assert torch.equal(found(given, *longer)[:, :30], first)
    assert 1 <= made[1] <= 5  # only the new ones


def test_unused_positions_ask_for_nothing():
    focus, offset, used = asked(4, 6)
    used[0, 3:] = False
    table, which = probes.lookup(setup(), focus, offset, used, 16)
    assert len(table) == len(which[used].unique()) <= 3


@pytest.mark.parametrize(
    "change",
    [
        {"semiangle": 30.0},
        {"energy": 80e3},
        {"aberrations": Aberrations(C12=30.0)},
        {"window": Grid((20, 20), 0.3), "detector": (20, 20)},
        {"window": Grid((24, 20), 0.25), "object": Grid((52, 48), 0.25), "field": (6.0, 5.0)},
    ],
)
def test_another_beam_has_other_probes(change):
    request = asked(5, 8)
    found(setup(), *request)
    other = setup(**change)
    kept = found(other, *request)
    probes._kept.clear()
    assert torch.equal(kept, found(other, *request))


def test_lattice_precision_and_defocus_are_told_apart():
    given, (focus, offset, used) = setup(), asked(6, 8)
    found(given, focus, offset, used)
    for request, subpixel in (
        ((focus, offset, used), 8),
        ((focus.double(), offset.double(), used), 16),
        ((focus + 1, offset, used), 16),
    ):
        kept = found(given, *request, subpixel=subpixel)
        probes._kept.clear()
        assert torch.equal(kept, found(given, *request, subpixel=subpixel))


def test_a_measured_probe_is_known_by_its_values():
    """Also when they are changed in place."""
    measured = setup(aberrations=Aberrations(C21=400.0)).probe()
    given, request = setup(measured_probe=measured), asked(7, 8, foci=(0.0,))
    before = found(given, *request)
    measured *= torch.linspace(0, 1, 20)
    after = found(given, *request)
    assert not torch.allclose(before, after)
    probes._kept.clear()
    assert torch.equal(after, found(given, *request))


def test_each_data_set_has_its_own_measured_probe():
    lenses = [setup(aberrations=Aberrations(C12=30.0)), setup(aberrations=Aberrations(C21=400.0))]
    given = setup(measured_probe=torch.stack([lens.probe() for lens in lenses]))
    focus, offset, used = asked(8, 12, sets=2, dtype=torch.float64, foci=(0.0, 50.0))
    both = found(given, focus, offset, used)
    for b, lens in enumerate(lenses):
        expected = found(lens, focus[b : b + 1], offset[b : b + 1], used[b : b + 1])
        # One more transform of numbers below one, in double precision.
        torch.testing.assert_close(both[b], expected[0], rtol=0, atol=1e-13)


def test_memory_is_bounded(monkeypatch):
    request = asked(9, 20)
    for angle in range(20, 30):
        found(setup(semiangle=float(angle)), *request)
    assert len(probes._kept) == probes.KEPT_BEAMS
    monkeypatch.setattr(probes, "KEPT_BYTES", 10 * 24 * 20 * 8)  # ten probes
    probes._kept.clear()
    large = found(setup(), *request)
    assert not probes._kept
    assert torch.equal(large, found(setup(), *request))


def test_threads_share_a_table():
    given, requests = setup(), [asked(seed, 25) for seed in range(12)]
    alone = []
    for request in requests:
        probes._kept.clear()
        alone.append(found(given, *request))
    probes._kept.clear()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: found(given, *request), requests))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))

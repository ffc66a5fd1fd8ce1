"""Optics, forward model and potential against abTEM, an independent multislice program (skipped where it is not installed).

abTEM puts x on the first axis; its arrays are transposed here. Its aperture edge is soft over one pixel along each direction, as ours is on
a square window, so the default `soft=True` coincides with ours. Its antialiasing cut at 2/3 of the band is switched off.
"""

import warnings

import numpy as np
import pytest
import torch

from adaptycho.physics.forward import diffract
from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Aberrations, Setup, interaction_constant, wavelength
from adaptycho.physics.specimen import crystal, potential, structure

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of its dependencies are not ours
    abtem = pytest.importorskip("abtem")

pytestmark = pytest.mark.filterwarnings("default")

LENSES = [
    {},
    {"C10": -100.0},
    {"C10": -80.0, "C12": 20.0, "phi12": 0.4, "C21": 300.0, "phi21": -0.7, "C23": 200.0, "phi23": 0.2},
    {"C10": 60.0, "C30": 5e3, "C32": 3e3, "phi32": 1.1, "C34": 2e3, "phi34": -0.3, "C50": 2e6},
]


@pytest.fixture(autouse=True)
def double_precision():
    with abtem.config.set({"precision": "float64", "antialias.cutoff": 1.5, "antialias.taper": 0.0, "diagnostics.progress_bar": False}):
        yield


def variant(**aberrations: float) -> Setup:
    grid = Grid((100, 100), 0.308)
    return Setup(
        field=(20.0, 20.0),
        object=grid,
        window=Grid((32, 32), 0.308),
        detector=(32, 32),
        semiangle=33,
        energy=60e3,
        aberrations=Aberrations(**aberrations),
    )


def probe_of(setup: Setup, aberrations: dict[str, float]):
    return abtem.Probe(semiangle_cutoff=setup.semiangle, energy=setup.energy, gpts=32, sampling=0.308, aberrations=aberrations)


@pytest.mark.parametrize("energy", [30e3, 60e3, 200e3, 300e3])
def test_constants(energy):
    # CODATA editions differ in the eighth digit.
    assert wavelength(energy) == pytest.approx(abtem.core.energy.energy2wavelength(energy), rel=1e-7)
    assert interaction_constant(energy) == pytest.approx(abtem.core.energy.energy2sigma(energy), rel=1e-7)


@pytest.mark.parametrize("aberrations", LENSES)
def test_probe(aberrations):
    setup = variant(**aberrations)
    wave = np.asarray(probe_of(setup, aberrations).build(scan=np.zeros((1, 2)), lazy=False).array).reshape(32, 32).T
    wave = wave / np.sqrt((abs(wave) ** 2).sum())
    ours = setup.probe().numpy()
    # The relative difference of the wavelengths, 5e-9, times the largest aberration phases, tens of rad.
    assert abs(ours - wave).max() < 1e-6 * abs(ours).max()


@pytest.mark.parametrize("aberrations", LENSES)
@pytest.mark.parametrize("slices", [1, 3])
def test_patterns_of_the_same_potential(aberrations, slices):
    setup, generator = variant(**aberrations), torch.Generator().manual_seed(3)
    atoms = crystal(structure("MoS2"), setup.object.extent, generator=generator, layers=slices)
    values = potential(atoms, setup, slices=slices, dtype=torch.float64)
    positions = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    defocus = torch.full((4,), setup.aberrations.defocus, dtype=torch.float64)
    patterns = diffract(setup, values, positions, defocus, thickness=6.15).numpy()
    corner, offset = setup.place(positions)
    for ours, (row, column), beam in zip(patterns, corner.tolist(), offset.numpy(), strict=True):
        patch = values[..., row : row + 32, column : column + 32].reshape(-1, 32, 32).mT.numpy()
        array = abtem.PotentialArray(patch / interaction_constant(setup.energy), slice_thickness=6.15, sampling=0.308)
        at = ((beam + 16) * 0.308)[None, ::-1]
        waves = probe_of(setup, aberrations).multislice(array, scan=at, lazy=False)
        theirs = np.asarray(waves.diffraction_patterns(max_angle="full", parity="same", fftshift=False).array).reshape(32, 32).T
        # As for the probe; intensities double the relative difference.
        assert abs(ours - theirs / theirs.sum()).max() < 2e-6 * ours.max()


@pytest.mark.parametrize("projection", ["infinite", "finite"])
def test_potential_is_the_limit_of_abtem_at_fine_sampling(projection):
    setup, generator = variant(), torch.Generator().manual_seed(3)
    atoms = crystal(structure("MoS2"), setup.object.extent, generator=generator)
    ours = _inner_spectrum(potential(atoms, setup, thermal=0.0, dtype=torch.float64).numpy())
    boxed = atoms.copy()
    boxed.positions[:, :2] += setup.object.extent[0] / 2
    boxed.set_cell([*setup.object.extent, 12.0])
    boxed.positions[:, 2] += 3.0
    boxed.pbc = True
    differences = []
    for finer in (4, 8):
        built = abtem.Potential(boxed, gpts=100 * finer, parametrization="lobato", projection=projection, slice_thickness=12.0)
        fine = np.asarray(built.build(lazy=False).array).sum(0).T * interaction_constant(setup.energy)
        differences.append(_relative(ours, _inner_spectrum(fine)))
    # abTEM rounds atoms to its pixels in one way or another, an error that falls with the square of the pixel: at 1/8 of ours it is about
    # (pi k dx)^2 / 8 = 0.5 % at the band limit. Were the limit another than our potential, the ratio would fall below four.
    assert differences[1] < 0.008
    assert differences[0] / differences[1] == pytest.approx(4, rel=0.08)


def _inner_spectrum(image: np.ndarray) -> np.ndarray:
    """Frequencies below the Nyquist frequency of 100 pixels, normalised to the image's mean at zero."""
    keep = np.r_[0:50, -49:0]
    return np.fft.fft2(image, norm="forward")[np.ix_(keep, keep)]


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    """Rms difference over the contrast of b; the mean is left out, for abTEM's finite projection cuts the atoms' far tails."""
    difference, contrast = a - b, b.copy()
    difference[0, 0] = contrast[0, 0] = 0
    return float(np.linalg.norm(difference) / np.linalg.norm(contrast))

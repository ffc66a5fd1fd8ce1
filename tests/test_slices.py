"""Objects of several slices, and objects with a prior, while the probe and the rest are refined."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adaptycho.physics.forward import diffract
from adaptycho.physics.grid import fft2, ifft2
from adaptycho.physics.noise import counted
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.refine import passes
from adaptycho.scan import patterns
from adaptycho.types import Measurement
from test_refine import COUNT, bumps, directions, lit, point, scene

DEPTH = 60.0  # Å between slices: for this beam, out of focus by twice its depth of field


def apart(setup: Setup) -> Tensor:
    ky, kx = setup.window.frequencies()
    return -math.pi * setup.wavelength * (ky**2 + kx**2)


def layers(setup: Setup, count: int = 2) -> Tensor:
    return torch.stack([bumps(setup, 10 + s, 0.2) for s in range(count)])


def measured(setup: Setup, slices: Tensor, thickness: float, dose: float = 1e5, gain: float = 1.0) -> Measurement:
    where = patterns.raster(144, setup.field).double()
    focus = torch.full((len(where),), setup.aberrations.defocus, dtype=torch.float64)
    expected = dose * diffract(setup, slices, where, focus, thickness=thickness)
    counts = gain * counted(expected, generator=torch.Generator().manual_seed(4))
    return Measurement(where[None].float(), counts[None].float(), torch.full((1, len(where)), gain * dose), focus[None].float())


# --- gradients --------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(st.integers(2, 4), st.booleans(), st.sampled_from(["amplitude", "poisson"]))
def test_gradients_and_slopes_are_autograd(count, complex_, loss):
    """Of every slice, the probe, positions, and the distance of slices, against the same model in plain torch."""
    setup = scene()
    seen, (_, probe, pixels, _, level) = point(setup, loss)
    v = layers(setup, count)
    v = torch.complex(v, 0.05 * v.abs()) if complex_ else v

    def value(v: Tensor, probe: Tensor, pixels: Tensor, depth: Tensor) -> Tensor:
        centre = pixels.detach().round()
        corner = centre.long() - torch.tensor(setup.window.shape) // 2
        ky, kx = setup.window.frequencies()
        focus = math.pi * setup.wavelength * (ky**2 + kx**2) * torch.tensor([0.0, 10.0, 10.0, 0.0], dtype=torch.float64)[:, None, None]
        total = 0.0
        for mode in probe:
            wave = setup.shift(fft2(mode) * torch.polar(torch.ones_like(focus), focus), pixels - centre) * level.exp()[:, None, None]
            for s, slice_ in enumerate(v):
                if s:
                    wave = ifft2(fft2(wave) * torch.exp(1j * depth * apart(setup)))
                wave = wave * torch.exp(1j * torch.stack([slice_[a : a + 24, b : b + 24] for a, b in corner.tolist()]))
            total = total + fft2(wave).abs().square()
        data = seen.patterns * seen.scale[:, None, None]
        more = 3e-3 * seen.scale[:, None, None]
        each = {
            "amplitude": lambda: (total.sqrt() - data.sqrt()).square(),
            "poisson": lambda: total - data - (data + more) * torch.log((total + more) / (data + more)),
        }[loss]()
        return (each * seen.weight * seen.share[:, None, None]).sum()

    free = [x.clone().requires_grad_() for x in (v, probe, pixels, torch.tensor(DEPTH, dtype=torch.float64))]
    by_object, by_probe, by_pixels, by_depth = torch.autograd.grad(value(*free), free)
    turn = DEPTH * apart(setup)
    light = replace(lit(setup, probe, pixels, level), propagator=torch.polar(torch.ones_like(turn), turn))
    to_object, to_probe = torch.zeros_like(v), torch.zeros_like(light.spectra)
    passes.gradient(seen, light, torch.exp(1j * v), to_object, to_probe)
    to_object = -1j * to_object if complex_ else to_object
    # Double precision throughout; amplitudes are divided by, which costs some digits.
    torch.testing.assert_close(2 * to_object, by_object, rtol=0, atol=1e-9 * float(by_object.abs().max()))
    change = lit(setup, ifft2(torch.ones_like(probe[:1])), pixels, level).spectra[:, 0]
    torch.testing.assert_close(
        2 * ifft2((to_probe * change.conj()[:, None]).sum(0)), by_probe, rtol=0, atol=1e-9 * float(by_probe.abs().max())
    )
    slopes, curvatures = passes.tangents(seen, light, torch.exp(1j * v), directions(setup), apart(setup)[None])
    torch.testing.assert_close(slopes[:, :2], by_pixels, rtol=0, atol=1e-9 * float(by_pixels.abs().max()))
    assert float(slopes[:, 3].sum()) == pytest.approx(float(by_depth), rel=1e-8)
    assert curvatures.shape == (COUNT, 5, 5)
    assert (curvatures[:, 3, 3] > 0).all()


# --- what is found ----------------------------------------------------------------------------------------------------------------------


def test_two_slices_are_told_apart_and_their_distance_is_found():
    setup = scene()
    truth = layers(setup)
    seen = measured(setup, truth, DEPTH)
    one = Reconstructor.best(setup, iterations=60)(seen)
    found = Reconstructor.best(setup, iterations=100, slices=2, thickness=0.7 * DEPTH, refine=("thickness",))(seen)
    assert found.slices is not None
    assert found.slices.shape == (1, 2, *setup.object.shape)
    torch.testing.assert_close(found.potential, found.slices.sum(1))
    assert found.refined is not None
    # 0.7 of it to begin with.
    assert float(found.refined.thickness) == pytest.approx(DEPTH, rel=0.1)
    assert float(found.loss[0, -1]) < 0.7 * float(one.loss[0, -1])
    each = [similar(found.slices[0, s], truth[s], setup) for s in range(2)]
    crossed = [similar(found.slices[0, s], truth[1 - s], setup) for s in range(2)]
    assert min(each) > 0.8
    assert max(crossed) < 0.4


def similar(a: Tensor, b: Tensor, setup: Setup) -> float:
    a, b = (setup.crop(x[None].double())[0, 4:-4, 4:-4].flatten() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    return float(torch.dot(a, b) / a.norm() / b.norm())


def test_slices_go_on_from_where_they_were():
    setup = scene()
    seen = measured(setup, layers(setup), DEPTH)
    how = Reconstructor.best(setup, iterations=8, slices=2, thickness=DEPTH, refine=("thickness",))
    first = how(seen)
    more = how(seen, first)
    assert more.loss.shape == (1, 16)
    assert float(more.loss[0, -1]) < float(first.loss[0, -1])


def test_with_intensities_refined_and_a_prior_less_is_invented():
    """Few electrons: what is refined with a prior is nearer to the truth, and as near as the same prior without refinement."""
    setup = scene()
    truth = bumps(setup, 20, 0.3).clamp(min=0)
    seen = measured(setup, truth, 0.0, dose=300.0)
    prior = {"prior": "atoms", "loss": "poisson", "iterations": 40, "strength": 0.25}
    plain, refined, known = (
        similar(Reconstructor.best(setup, **how)(seen).phase[0], truth, setup)
        for how in (
            {"iterations": 40, "refine": ("intensities",)},
            {"refine": ("intensities",), **prior},
            prior,
        )
    )
    assert refined > plain + 0.05
    assert refined > known - 0.03


def test_a_prior_goes_on_from_its_coefficients():
    setup = scene()
    seen = measured(setup, bumps(setup, 20, 0.3).clamp(min=0), 0.0, dose=1000.0)
    how = Reconstructor.best(setup, iterations=6, loss="poisson", prior="atoms", refine=("probe",))
    first = how(seen)
    assert first.coefficients is not None
    assert (first.coefficients >= 0).all()
    more = how(seen, first)
    assert more.loss.shape == (1, 12)
    assert float(more.loss[0, 6]) <= float(first.loss[0, -1])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"refine": ("thickness",)}, "refine: expected thickness only of several slices, got one slice"),
        ({"slices": 0}, "slices: expected at least 1, got 0"),
        ({"thickness": -1.0}, "thickness: expected a finite number of at least 0, got -1.0"),
        (
            {"refine": ("probe",), "prior": "auto"},
            "prior: expected one by name, or none, with probe refined, got 'auto', which is for one slice and a known probe",
        ),
    ],
)
def test_what_cannot_be_is_refused(how, message):
    with pytest.raises(ValueError) as error:
        Reconstructor.best(scene(), **how)
    assert str(error.value) == message


# --- counts of an electron --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["anscombe", "poisson"])
@pytest.mark.parametrize("refine", [(), ("intensities",)])
def test_counts_of_an_electron_make_no_difference(loss, refine):
    """Ten counts for an electron, when that is known: what is added to every pixel is a part of an electron."""
    setup = scene()
    how = {"loss": loss, "refine": refine, "iterations": 5}
    truth = bumps(setup, 20, 0.3)
    one, ten = (
        Reconstructor.best(setup, counts_per_electron=gain, **how)(measured(setup, truth, 0.0, dose=200.0, gain=gain))
        for gain in (1.0, 10.0)
    )
    off = Reconstructor.best(setup, **how)(measured(setup, truth, 0.0, dose=200.0, gain=10.0))
    # Single precision over five iterations; unknown, it makes a difference a thousand times as large.
    assert float((one.phase - ten.phase).abs().max()) < 1e-4 * float(one.phase.abs().max())
    assert float((one.phase - off.phase).abs().max()) > 1e-2 * float(one.phase.abs().max())

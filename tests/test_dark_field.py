"""What a scanner is told of electrons that leave the bright-field disc."""

import pytest
import torch

from adaptycho import settings
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.forward import Imperfections
from adaptycho.scan.episode import observe, run, scattered
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.settings import Settings, build
from adaptycho.types import Action

SMALL = {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "scan": {"positions": 8, "subsequences": 2, "dose": 1e4}}


def small(**sections: dict[str, object]) -> Settings:
    return settings.update(settings.update(settings.preset("light"), SMALL, "test"), sections, "test")


@pytest.mark.parametrize("binning", [1, 2])
def test_without_a_specimen_nothing_leaves_the_disc(binning: int) -> None:
    setup = build.setup(small(geometry={"binning": binning, "detector": 32 // binning}))
    vacuum = Simulated(setup, torch.zeros(1, *setup.object.shape), 1e6, Imperfections(noise=False))
    measured = vacuum.acquire(Action(torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(0))), generator=torch.Generator())
    # The aperture's soft edge is one pixel of the window wide; rounding of a float32 transform is what is left beyond.
    assert float(scattered(measured, setup).abs().max()) < 1e-6
    # The mask is not everything: outside the disc there is a good part of the detector.
    share = float(setup.dark_field().mean())
    disc = 3.1416 * (setup.semiangle / setup.detector_pixel) ** 2 / (setup.detector[0] * setup.detector[1])
    assert 1 - 2.2 * disc < share < 1 - disc


def test_more_is_scattered_on_the_atoms_than_between_them() -> None:
    setup = build.setup(small())
    heavy = torch.zeros(1, *setup.object.shape)
    centre = [n // 2 for n in setup.object.shape]
    heavy[0, centre[0] - 1 : centre[0] + 2, centre[1] - 1 : centre[1] + 2] = 1.0
    microscope = Simulated(setup, heavy, 1.0, Imperfections(noise=False))
    measured = microscope.acquire(Action(torch.tensor([[[0.5, 0.5], [0.05, 0.05]]])), generator=torch.Generator())
    on, off = scattered(measured, setup)[0].tolist()
    assert on > 10 * off
    # A fraction of the dose, so twice the dose is the same.
    double = microscope.acquire(Action(torch.tensor([[[0.5, 0.5], [0.05, 0.05]]]), dose=2.0), generator=torch.Generator())
    assert torch.allclose(scattered(double, setup), scattered(measured, setup))


def test_an_observation_has_it_for_every_position() -> None:
    chosen = small()
    microscope = build.simulated(chosen)
    (first, _) = run(microscope, Fixed("halton"), build.reconstructor(chosen, microscope.setup), [4, 4], seed=0)
    seen = observe(first, microscope, [4, 4], 1)
    assert seen.scattered is not None
    assert seen.scattered.shape == seen.dose.shape == (1, 4)
    outside = (first.seen.patterns * microscope.setup.dark_field()).sum((-1, -2)) / first.seen.dose
    assert torch.allclose(seen.scattered, outside)


def test_fillings_in_a_range() -> None:
    areas = []
    for number in range(12):
        wanted = {"family": "island", "options": {"filling": [0.15, 0.35]}, "first": number}
        chosen = small(specimen=wanted, geometry={"field": [20.0, 20.0], "object": 100})
        areas.append(len(build.atoms(chosen, build.setup(chosen), number)))
    # A quarter of 20 x 20 Å at 3 atoms on 8.7 Å² is 34 atoms; a sevenfold and a third of the field are 20 and 48, edges cost or give some.
    assert min(areas) < 30 < 38 < max(areas)
    with pytest.raises(ValueError, match=r"specimen\.options: .*filling: expected a number, or two from lower to higher"):
        build.atoms(small(specimen={"family": "island", "options": {"filling": [0.3, 0.1]}}), build.setup(small()), 0)

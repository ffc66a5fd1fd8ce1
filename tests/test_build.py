"""From settings to things: each setting arrives where it belongs, and what is random is random in the right way."""

import math
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest
import torch

from adaptycho import formats
from adaptycho.formats import Recording
from adaptycho.instruments.recorded import Recorded
from adaptycho.physics.forward import Imperfections
from adaptycho.physics.optics import object_grid
from adaptycho.physics.specimen import Family
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.scan import policies as scan_policies
from adaptycho.scan.episode import stream
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import BEST, Settings, build, policies, preset, update
from adaptycho.types import Action

TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": 30, "subsequences": 3},
    "reconstruct": {"iterations": 2, "reference_side": 6},
}


def tiny(**changes: dict[str, object]) -> Settings:
    return update(update(preset("light"), TINY, "tiny"), changes, "test")


@pytest.mark.parametrize(("name", "object_px", "window", "pixel"), [("light", 100, 32, 0.308), ("paper", 200, 64, 0.154)])
def test_presets_make_their_setups(name: str, object_px: int, window: int, pixel: float) -> None:
    setup = build.setup(preset(name))
    assert (setup.object.shape, setup.window.shape, setup.detector) == ((object_px,) * 2, (window,) * 2, (window,) * 2)
    assert (setup.object.pixel, setup.field, setup.energy, setup.semiangle) == (pixel, (20.0, 20.0), 60e3, 33.0)


def test_every_setting_of_beam_and_geometry_arrives() -> None:
    beam = {"wavelength": 0.05, "semiangle": 25.0, "defocus": 40.0, "aberrations": {"C30": 1e4, "C12": 5.0, "phi12": 0.3}}
    chosen = tiny(beam=beam, geometry={"window": 64, "detector": 16, "binning": 2})
    setup = build.setup(chosen)
    assert (setup.energy, setup.wavelength, setup.semiangle) == (None, 0.05, 25.0)
    assert setup.aberrations.defocus == 40.0
    assert (setup.aberrations.C30, setup.aberrations.C12, setup.aberrations.phi12) == (1e4, 5.0, 0.3)
    assert (setup.window.shape, setup.detector, setup.binning, setup.field) == ((64, 64), (16, 16), 2, (8.0, 6.0))
    assert setup.object == object_grid((8.0, 6.0), setup.window)
    with pytest.raises(ValueError, match=r"^beam\.aberrations: expected Krivanek names .*, found C99$"):
        build.setup(tiny(beam={"aberrations": {"C99": 1.0}}))


def test_every_setting_of_the_instrument_arrives() -> None:
    microscope = build.simulated(
        tiny(instrument={"noise": False, "jitter": 0.1, "background": 0.2, "source_size": 0.3}, scan={"dose": 7.0})
    )
    assert microscope.imperfections == Imperfections(noise=False, jitter=0.1, background=0.2, source_size=0.3)
    assert microscope.dose == 7.0


def test_specimens_differ_and_come_back_with_the_seed() -> None:
    three, again, other = (build.simulated(tiny(specimen={"count": 3}, scan={"seed": seed})).potential for seed in (5, 5, 6))
    assert torch.equal(three, again)
    flat = torch.cat([three, other]).flatten(1)
    # Lattices are turned and shifted at random: any two specimens are about as different as a specimen is from its mean.
    assert float(torch.pdist(flat).min()) > float((flat - flat.mean(1, keepdim=True)).norm(dim=1).min())
    # How many there are does not change any of them.
    assert torch.equal(build.simulated(tiny(specimen={"count": 1}, scan={"seed": 5})).potential, three[:1])


@pytest.mark.parametrize("family", get_args(Family))
def test_every_family_can_be_built(family: Family) -> None:
    microscope = build.simulated(tiny(specimen={"family": family}))
    truth = build.truth_in_field(microscope)
    assert truth.shape == (1, *microscope.setup.field_shape)
    assert bool(torch.isfinite(truth).all())
    assert float(truth.std()) > 0


def test_options_reach_the_family_and_wrong_ones_are_named() -> None:
    turned = [build.simulated(tiny(specimen={"options": {"rotation": angle}})).potential for angle in (0.0, 30.0)]
    assert not torch.allclose(*turned)
    for wrong, why in (({"bogus": 1}, "bogus"), ({"rotation": "abc"}, "rotation"), ({"strain": 5.0}, "strain")):
        with pytest.raises(ValueError, match=rf"(?s)^specimen\.options: expected options of family crystal, found .* \(.*{why}"):
            build.simulated(tiny(specimen={"options": wrong}))


def test_thickness_is_given_or_the_height_of_the_structure() -> None:
    given = build.simulated(tiny(specimen={"slices": 3, "thickness": 2.5}))
    assert given.thickness == 2.5
    assert given.potential.shape[1] == 3
    own = build.simulated(tiny(specimen={"slices": 3}))
    thin = build.simulated(tiny(specimen={"slices": 6}))
    assert own.thickness > 0
    assert math.isclose(own.thickness, 2 * thin.thickness, rel_tol=1e-12)
    # However it is sliced, the projection is the same, up to rounding of a sum of six single-precision numbers.
    one = build.simulated(tiny())
    assert torch.allclose(build.truth_in_field(own), build.truth_in_field(one), atol=1e-5 * float(one.potential.max()))
    assert torch.allclose(build.truth_in_field(thin), build.truth_in_field(own), atol=1e-5 * float(one.potential.max()))


def test_absorption_and_contamination_arrive() -> None:
    plain, lossy, dirty = (build.simulated(tiny(specimen=s)) for s in ({}, {"absorption": 0.1}, {"contamination": 0.2}))
    # Nothing amplifies: where the band limit makes the potential negative, nothing is absorbed.
    assert torch.allclose(lossy.potential.imag, 0.1 * plain.potential.clamp(min=0), rtol=1e-6)
    assert torch.equal(build.truth_in_field(lossy), build.truth_in_field(plain))
    assert not torch.allclose(dirty.potential, plain.potential, atol=0.05)


def test_scanner_by_name() -> None:
    chosen = tiny(
        scan={"policy": "random", "defocus": 30.0}, heuristic={"pull": 0.2, "reach": 1.0, "smooth": 0.5, "contrast": 0.1, "floor": 0.3}
    )
    assert build.scanner(chosen) == Fixed("random", 30.0)
    assert build.scanner(chosen, "raster") == Fixed("raster", 30.0)
    assert build.scanner(chosen, "heuristic") == Heuristic(0.2, 1.0, 0.5, 0.1, 0.3, 30.0)
    assert build.scanner(Settings()) == Heuristic()
    with pytest.raises(ValueError, match=r"scan\.policy: expected 'heuristic', .* or 'spiral', found 'psychic'"):
        build.scanner(chosen, "psychic")


def test_every_policy_has_a_file_and_is_made_at_its_defocus() -> None:
    folder = Path(scan_policies.__path__[0])
    listed = {text.partition(":")[0] for text in policies.OWN.values()}
    # Those that are no policy of this list: patterns, and what carries the weights of a network.
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "fixed", "learned"} == listed
    for name in policies.OWN:
        made = build.scanner(tiny(), name, 12.0)
        assert made.defocus == 12.0  # type: ignore[attr-defined]
        assert type(made).__name__ == policies.OWN[name].partition(":")[2]


@pytest.mark.parametrize(
    ("brought", "said"),
    [
        (lambda settings, defocus: Fixed("raster", defocus), None),
        (lambda settings, defocus: None, "adaptycho.policies: expected brought:scanner to make a scanner for 'mine', found a NoneType"),
        (lambda settings: None, "adaptycho.policies: expected brought:scanner to make the policy 'mine' .*, found TypeError: .*"),
    ],
)
def test_a_package_brings_a_policy(monkeypatch: pytest.MonkeyPatch, brought: Callable[..., object], said: str | None) -> None:
    module = types.ModuleType("brought")
    module.scanner = brought  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "brought", module)
    point = EntryPoint("mine", "brought:scanner", policies.GROUP)
    monkeypatch.setattr("adaptycho.support.plugins.entry_points", lambda group: [point] if group == policies.GROUP else [])
    chosen = tiny(scan={"policy": "mine", "defocus": 30.0})
    if said is None:
        assert build.scanner(chosen) == Fixed("raster", 30.0)
    else:
        with pytest.raises(ValueError, match=f"^{said}$"):
            build.scanner(chosen)
    with pytest.raises(ValueError, match=r"scan\.policy: expected .*, 'spiral' or 'mine', found 'yours'"):
        tiny(scan={"policy": "yours"})


def test_reconstructor_as_set() -> None:
    setup = build.setup(preset("light"))
    assert build.reconstructor(Settings(), setup) == Reconstructor(setup)
    chosen = update(Settings(), {"reconstruct": BEST | {"kind": "complex", "subpixel": 4}}, "test")
    assert build.reconstructor(chosen, setup) == Reconstructor.best(setup, kind="complex", subpixel=4)


def test_full_scan_is_a_raster_of_the_set_size_over_the_whole_field() -> None:
    chosen = tiny(specimen={"count": 2})
    source = build.simulated(chosen)
    full = build.full_scan(chosen, source)
    assert full.positions.shape == (2, 36, 2)
    line = torch.arange(6) / 6
    assert torch.allclose(full.positions[1], torch.cartesian_prod(line, line), atol=1e-7)
    # Its noise is its own, not that of the first sub-sequence of a scan.
    first = source.acquire(Action(full.positions), generator=stream(chosen.scan.seed, 0))
    assert not torch.equal(first.patterns, full.patterns)
    assert preset("paper").reconstruct.reference_side == preset("light").reconstruct.reference_side == 100


def test_reference_is_the_reconstruction_of_the_full_scan_with_its_own_step() -> None:
    chosen = tiny(specimen={"count": 2}, instrument={"noise": False})
    microscope = build.simulated(chosen)
    reference = build.reference(chosen, microscope)
    descent = Reconstructor(microscope.setup, 2, step=chosen.reconstruct.reference_step)
    # Without noise it makes no difference whether specimens are taken together or one by one, but for the order of a few sums.
    wanted = microscope.setup.crop(descent(build.full_scan(chosen, microscope)).phase)
    assert torch.allclose(reference, wanted, atol=1e-5 * float(wanted.abs().max()))
    other = build.reference(tiny(specimen={"count": 2}, instrument={"noise": False}, reconstruct={"reference_step": 100.0}), microscope)
    assert not torch.allclose(other, reference)


def test_reference_with_a_step_that_needs_no_other_is_the_plain_reconstruction() -> None:
    for change in ({"step": "auto"}, {"scaling": "illumination", "step": 0.5}):
        a, b = (tiny(reconstruct=change | {"reference_step": step}) for step in (1.0, 1000.0))
        microscope = build.simulated(a)
        assert torch.equal(build.reference(a, microscope), build.reference(b, microscope))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = tiny()
    microscope = build.simulated(chosen)
    path = tmp_path_factory.mktemp("recordings") / "small.h5"
    formats.write(path, Recording(microscope.setup, build.full_scan(chosen, microscope), title="small", counts_per_electron=2.0))
    return path


def test_recorded_is_the_file_or_a_part_of_it(file: Path) -> None:
    whole = build.recorded(tiny(scan={"file": str(file)}))
    assert isinstance(whole, Recorded)
    assert whole.measurement.positions.shape == (1, 36, 2)
    assert whole.counts_per_electron == 2.0
    part = build.recording(tiny(scan={"file": str(file), "rows": [0.0, 0.5], "columns": [0.0, 1.0]}))
    # Positions are at 0, 1/6, ..., 5/6: four rows of six lie in the upper half, both ends kept.
    assert part.measurement.positions.shape == (1, 24, 2)
    assert part.setup.field == (4.0, 6.0)
    assert (part.title, part.counts_per_electron) == ("small", 2.0)


def test_reference_of_a_recording_is_made_of_everything(file: Path) -> None:
    chosen = tiny(scan={"microscope": "recorded", "file": str(file)})
    microscope = build.recorded(chosen)
    descent = Reconstructor(microscope.setup, chosen.reconstruct.iterations, step=chosen.reconstruct.reference_step)
    wanted = descent(formats.read(file).measurement).phase
    assert torch.equal(build.reference(chosen, microscope), microscope.setup.crop(wanted))


def test_without_a_file_the_shipped_recording_is_replayed() -> None:
    recording = build.recording(Settings())
    assert recording.path == formats.example()
    assert recording.measurement.positions.shape[1] == 4096

"""Refinement: every part of the gradient, what is recovered, going on with more patterns, and what is refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import h5py
import pytest
import torch

import fake_device
from adaptycho.app.cli import main
from adaptycho.formats import Recording, write
from adaptycho.metrics import band_limit
from adaptycho.physics.forward import diffract, record
from adaptycho.physics.grid import Grid, fft2, ifft2
from adaptycho.physics.noise import counted
from adaptycho.physics.optics import Aberrations, Setup
from adaptycho.reconstruct import LOSSES
from adaptycho.reconstruct.checks import check
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.losses.function import FLOOR
from adaptycho.reconstruct.losses.poisson import BACKGROUND
from adaptycho.reconstruct.refine import modes, passes
from adaptycho.settings import build, override, preset
from adaptycho.types import Measurement


def scene(**changes) -> Setup:
    given = {"field": (8.0, 8.0), "object": Grid((64, 64), 0.3), "window": Grid((24, 24), 0.3), "detector": (24, 24)}
    return Setup(**(given | {"semiangle": 33.0, "energy": 60e3, "aberrations": Aberrations(C10=-60.0)} | changes))


def bumps(setup: Setup, seed: int = 0, size: float = 0.3) -> torch.Tensor:
    rough = torch.randn(setup.object.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = band_limit(rough, setup.object.pixel, 0.8)
    return size * smooth / smooth.std()


def places(count: int, seed: int = 0, margin: float = 0.1) -> torch.Tensor:
    return margin + (1 - 2 * margin) * torch.rand(count, 2, generator=torch.Generator().manual_seed(50 + seed), dtype=torch.float64)


def measured(setup: Setup, where: torch.Tensor, reported: torch.Tensor | None = None, *, level: torch.Tensor | None = None) -> Measurement:
    """Noisy counts of 1e5 electrons at true positions, said to be of others."""
    focus = torch.full((len(where),), setup.aberrations.defocus, dtype=torch.float64)
    expected = 1e5 * diffract(setup, bumps(setup), where, focus) * (1 if level is None else level[:, None, None])
    counts = counted(expected, generator=torch.Generator().manual_seed(3))
    said = where if reported is None else reported
    return Measurement(said[None].float(), counts[None].float(), torch.full((1, len(where)), 1e5), focus[None].float())


def correlation(found: torch.Tensor, setup: Setup) -> float:
    """With the truth, where the beam was: less a margin of the field, and the constant and ramp that positions leave free."""
    a, b = (setup.crop(x[None].double())[0, 4:-4, 4:-4] for x in (found, bumps(setup)))
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in a.shape)
    free = torch.stack([torch.ones_like(a), y[:, None].expand_as(a), x.expand_as(a)]).flatten(1).T
    a, b = (v.flatten() - free @ torch.linalg.lstsq(free, v.flatten()[:, None]).solution[:, 0] for v in (a, b))
    return float(torch.dot(a, b) / a.norm() / b.norm())


# --- gradients --------------------------------------------------------------------------------------------------------------------------


GEOMETRY = {"plain": {}, "cropped and binned": {"detector": (8, 8), "binning": 2}}
COUNT = 4


def modelled(setup: Setup, v, probe, pixels, defocus, level) -> torch.Tensor:
    """Patterns in plain torch, for autograd."""
    ky, kx = setup.window.frequencies()
    turn = math.pi * setup.wavelength * (ky**2 + kx**2) * defocus[:, None, None]
    centre = pixels.detach().round()
    corner = centre.long() - torch.tensor(setup.window.shape) // 2
    model = 0.0
    for mode in probe:
        waves = setup.shift(fft2(mode) * torch.polar(torch.ones_like(turn), turn), pixels - centre) * level.exp()[:, None, None]
        windows = [v[a : a + setup.window.shape[0], b : b + setup.window.shape[1]] for a, b in corner.tolist()]
        model = model + fft2(waves * torch.exp(1j * torch.stack(windows))).abs().square()
    return record(setup, model)


def literal(setup: Setup, seen: passes.Seen, v, probe, pixels, defocus, level, loss: str) -> torch.Tensor:
    """The loss summed over patterns."""
    model = modelled(setup, v, probe, pixels, defocus, level)
    data = seen.patterns * seen.scale[:, None, None]
    if loss == "intensity":
        value = (model - data).square()
    elif loss == "amplitude":
        value = (model.sqrt() - data.sqrt()).square()
    elif loss == "anscombe":
        more = 3 / 8 * seen.scale[:, None, None]
        value = ((model + more).sqrt() - (data + more).sqrt()).square()
    else:
        more = BACKGROUND * seen.scale[:, None, None]
        value = model - data - (data + more) * torch.log((model + more) / (data + more))
    return (value * seen.weight * seen.share[:, None, None]).sum()


def point(setup: Setup, loss: str, complex_: bool = False) -> tuple[passes.Seen, list[torch.Tensor]]:
    """Patterns, and potential, two modes, positions, defoci and levels that do not explain them."""
    generator = torch.Generator().manual_seed(7)
    v = bumps(setup, 1)
    v = torch.complex(v, 0.1 * bumps(setup, 2).abs()) if complex_ else v
    probe = modes.first(setup.probe()[None], 2)
    pixels = 28 + 8 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64)
    defocus = torch.tensor([0.0, 10.0, 10.0, 0.0], dtype=torch.float64)
    level = 0.1 * torch.randn(COUNT, generator=generator, dtype=torch.float64)
    patterns = torch.poisson(20 * torch.rand(COUNT, *setup.detector, generator=generator, dtype=torch.float64), generator=generator)
    scale = 1 / patterns.sum((1, 2))
    share = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=torch.float64)
    # Where next to nothing is expected, the amplitude loss is held at a floor and is not what it is called.
    bright = modelled(setup, v, probe, pixels, defocus, level).amin(0) > FLOOR
    known = ((torch.rand(setup.detector, generator=generator) > 0.1) & bright).double()
    seen = passes.Seen(patterns, scale, share, torch.tensor([0, 1, 1, 0]), known, loss, setup.binning)
    return seen, [v, probe, pixels, defocus, level]


def lit(setup: Setup, probe, pixels, level) -> passes.Light:
    ky, kx = setup.window.frequencies()
    turn = math.pi * setup.wavelength * (ky**2 + kx**2) * torch.tensor([0.0, 10.0], dtype=torch.float64)[:, None, None]
    change = torch.polar(torch.ones_like(turn), turn)
    return passes.light(fft2(probe) * change[:, None], pixels, level.exp())


def directions(setup: Setup) -> torch.Tensor:
    ky, kx = setup.window.frequencies()
    some = (-2 * math.pi * ky * setup.window.pixel, -2 * math.pi * kx * setup.window.pixel, math.pi * setup.wavelength * (ky**2 + kx**2))
    return torch.stack([x.expand(setup.window.shape) for x in some])


def _compile_little(loss, monkeypatch):
    """Compiled in double precision for one loss only: each takes ten seconds where nothing is cached."""
    if loss != "amplitude":
        monkeypatch.setattr(passes, "_plan", lambda seen, lit: None)


@pytest.mark.parametrize("geometry", GEOMETRY)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("complex_", [False, True])
def test_every_part_of_the_gradient_is_autograd(loss, geometry, complex_, monkeypatch):
    _compile_little(loss, monkeypatch)
    setup = scene(**GEOMETRY[geometry])
    seen, values = point(setup, loss, complex_)
    free = [x.clone().requires_grad_() for x in values]
    value = literal(setup, seen, *free, loss)
    by_object, by_probe, by_pixels, by_defocus, by_level = torch.autograd.grad(value, free)
    v, probe, pixels, _, level = values
    light, through = lit(setup, probe, pixels, level), torch.exp(1j * v)
    to_object, to_probe = torch.zeros_like(v), torch.zeros_like(light.spectra)
    found = passes.gradient(seen, light, through, to_object, to_probe)
    # Double precision throughout; the amplitude loss divides by amplitudes, which costs some digits.
    assert found == pytest.approx(float(value.detach()), rel=1e-10)
    to_object = -1j * to_object if complex_ else to_object
    torch.testing.assert_close(2 * to_object, by_object, rtol=0, atol=1e-9 * float(by_object.abs().max()))
    change = lit(setup, torch.ones_like(probe[:1]) * 0 + ifft2(torch.ones_like(probe[:1])), pixels, level).spectra[:, 0]
    back = ifft2((to_probe * change.conj()[:, None]).sum(0))
    torch.testing.assert_close(2 * back, by_probe, rtol=0, atol=1e-9 * float(by_probe.abs().max()))
    slopes, _ = passes.tangents(seen, light, through, directions(setup))
    expected = torch.cat([by_pixels, by_defocus[:, None], by_level[:, None]], 1)
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("loss", LOSSES)
def test_curvatures_are_those_of_patterns_that_are_explained(loss, monkeypatch):
    _compile_little(loss, monkeypatch)
    setup = scene()
    seen, (v, probe, pixels, defocus, level) = point(setup, loss)
    light, through = lit(setup, probe, pixels, level), torch.exp(1j * v)
    windows = zip(light.spectra[seen.focus], light.rows, light.columns, light.corner.tolist(), strict=True)
    waves = [ifft2(s * r[:, None] * c) * through[a : a + 24, b : b + 24] for s, r, c, (a, b) in windows]
    model = fft2(torch.stack(waves)).abs().square().sum(1)
    explained = replace(seen, patterns=1e6 * model, scale=torch.full_like(seen.scale, 1e-6))
    _, curvatures = passes.tangents(explained, light, through, directions(setup))

    def value(moved):
        return literal(setup, explained, v, probe, pixels + moved[:, :2], defocus + moved[:, 2], level + moved[:, 3], loss)

    hessian = torch.autograd.functional.hessian(value, torch.full((COUNT, 4), 1e-7, dtype=torch.float64))
    own = torch.stack([hessian[k, :, k] for k in range(COUNT)])
    # L'' is a difference over 5 % of the intensity, which is off by about as much.
    scale = own.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(
        curvatures / scale[:, :, None] / scale[:, None, :], own / scale[:, :, None] / scale[:, None, :], rtol=0, atol=0.05
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_compiled_as_in_torch(loss, monkeypatch):
    """In single precision; in double torch's are autograd above, and for one loss the compiled ones."""
    setup, dtype = scene(), torch.float32
    seen, (v, probe, pixels, _, level) = point(setup, loss)
    seen = replace(seen, **{n: getattr(seen, n).to(dtype) for n in ("patterns", "scale", "share", "weight")})
    light, through = lit(setup, probe, pixels, level), torch.exp(1j * v).to(dtype.to_complex())
    light = passes.Light(*(x.to(dtype.to_complex()) for x in (light.spectra, light.rows, light.columns)), light.corner)
    found = []
    for plan in (passes._plan, lambda *_: None):
        monkeypatch.setattr(passes, "_plan", plan)
        to_object, to_probe = torch.zeros_like(through.real), torch.zeros_like(light.spectra)
        loss_ = passes.gradient(seen, light, through, to_object, to_probe)
        found.append(
            (torch.tensor(loss_, dtype=dtype), to_object, to_probe, *passes.tangents(seen, light, through, directions(setup).to(dtype)))
        )
    for a, b in zip(*found, strict=True):
        # Sums of some thousand terms, each rounded a few times, and of either sign.
        torch.testing.assert_close(a, b, rtol=0, atol=300 * torch.finfo(dtype).eps * float(b.abs().max()))


# --- modes ------------------------------------------------------------------------------------------------------------------------------


def test_orthogonal_modes_have_the_same_intensity():
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(3, 12, 10, generator=generator, dtype=torch.complex128)
    found, mixed = modes.orthogonal(probe, 2 * probe)
    torch.testing.assert_close(found.abs().square().sum(0), probe.abs().square().sum(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(mixed, 2 * found, rtol=1e-12, atol=1e-12)
    products = torch.einsum("mij,nij->mn", found.conj(), found)
    power = products.diagonal().real
    assert float((products - torch.diag(products.diagonal())).abs().max()) < 1e-12 * float(power.max())
    assert (power.diff() < 0).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_modes_to_begin_with_hold_all_of_the_intensity(count):
    found = modes.first(scene().probe()[None], count)
    assert len(found) == count
    assert float(found.abs().square().sum()) == pytest.approx(1, rel=1e-12)
    assert torch.linalg.matrix_rank(found.flatten(1)) == count


# --- what is recovered ------------------------------------------------------------------------------------------------------------------


def test_positions_are_found():
    setup, where = scene(), places(120)
    kick = torch.randn(where.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp(-2, 2) * 0.3 / 8
    reported = (where + kick).clamp(0, 1)
    data = measured(setup, where, reported)
    found = Reconstructor.best(setup, refine=("positions",), iterations=60)(data)

    def rms(positions):
        error = (positions - where) * 8 / 0.3
        return float((error - error.mean(0)).square().mean().sqrt())

    assert rms(reported) > 0.8
    assert rms(found.positions[0]) < 0.2
    plain = Reconstructor.best(setup)(data)
    assert correlation(found.phase[0], setup) > correlation(plain.phase[0], setup) + 0.008
    near = Reconstructor.best(setup, refine=("positions",), iterations=10, reach=0.03)(data)
    moved = (near.positions[0] - near.refined.reported[0]) * 8
    assert 0.5 * 0.03 < float(moved.abs().max()) < 0.03 * 1.001


def test_rotation_scale_and_defocus_are_found():
    setup, where = scene(), places(120, margin=0.15)
    cos, sin = math.cos(math.radians(3)), math.sin(math.radians(3))
    turned = (where - 0.5) @ torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64).T + 0.5
    found = Reconstructor.best(setup, refine=("rotation",), iterations=50)(measured(setup, where, turned))
    assert float(found.refined.rotation) == pytest.approx(3, abs=0.3)
    larger = Reconstructor.best(setup, refine=("affine",), iterations=50)(measured(setup, where, (where - 0.5) / 1.04 + 0.5))
    assert float(larger.refined.affine.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(1.04, abs=0.01)
    data, guess = measured(setup, where), setup.with_defocus(30.0)
    focus = Reconstructor.best(guess, refine=("defocus",), iterations=30)(replace(data, defocus=torch.full_like(data.defocus, 30.0)))
    assert float(focus.refined.defocus) == pytest.approx(30, abs=5)


def test_a_wrong_probe_of_several_modes_and_unlike_intensities_are_found():
    setup, where = scene(), places(120)
    level = 1 + 0.2 * torch.randn(120, generator=torch.Generator().manual_seed(2), dtype=torch.float64).clamp(-2, 2)
    guess = replace(setup, semiangle=27.0)
    data = measured(setup, where, level=level)
    plain = Reconstructor.best(guess)(data)
    found = Reconstructor.best(guess, refine=("probe", "intensities"), modes=2, iterations=50)(data)
    assert correlation(found.phase[0], setup) > max(0.95, correlation(plain.phase[0], setup) + 0.1)
    assert found.loss[0, -1] < 0.2 * plain.loss[0, -1]
    assert float(torch.corrcoef(torch.stack([found.refined.intensities[0], level.float()]))[0, 1]) > 0.99
    assert found.probe.shape == (1, 2, 24, 24)
    assert float(found.refined.powers[0, 0]) > 0.95  # the second mode has nothing to do


def test_a_known_probe_of_modes_is_used_as_it_is():
    setup, where = scene(), places(60)
    probe = modes.first(setup.probe()[None], 2) * torch.tensor([1.0, 5.0])[:, None, None]
    probe = probe / probe.abs().square().sum().sqrt()
    parts = [float(m.abs().square().sum()) * diffract(replace(setup, measured_probe=m), bumps(setup), where, torch.full((60,), 60.0))
             for m in probe]  # fmt: skip
    data = Measurement(where[None], (1e5 * sum(parts))[None], torch.full((1, 60), 1e5).double(), torch.full((1, 60), 60.0).double())
    found = Reconstructor.best(setup, probe=probe, iterations=40)(data)
    one = Reconstructor.best(setup, iterations=40)(data)
    assert found.loss[0, -1] < 0.1 * one.loss[0, -1]
    torch.testing.assert_close(found.probe[0].abs().square().sum(0), probe.abs().square().sum(0), rtol=1e-9, atol=1e-12)


# --- bookkeeping ------------------------------------------------------------------------------------------------------------------------


def test_without_refinement_nothing_is_refined_and_the_same_loss_is_met():
    setup = scene()
    data = measured(setup, places(30))
    plain = Reconstructor.best(setup, subpixel=256)(data)
    assert plain.refined is None and plain.probe is None and plain.positions is None
    known = Reconstructor.best(setup, probe=setup.probe())(data)
    # The same descent, but for probes on a lattice of 1/256 of a pixel, and the illumination to the next pixel.
    torch.testing.assert_close(known.loss[:, 0], plain.loss[:, 0], rtol=1e-4, atol=0)
    torch.testing.assert_close(known.loss[:, -1], plain.loss[:, -1], rtol=0.05, atol=0)
    torch.testing.assert_close(known.positions, data.positions, rtol=0, atol=1e-6)


def test_goes_on_with_more_patterns_from_what_was_refined():
    setup, where = scene(), places(120)
    kick = torch.randn(where.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.2 / 8
    data = measured(setup, where, (where + kick).clamp(0, 1))
    how = Reconstructor.best(setup, refine=("probe", "positions", "intensities", "defocus"), modes=2, iterations=20)
    begun = how(data.take(torch.arange(80)))
    fresh = replace(how, iterations=1)(data)
    on = replace(how, iterations=1)(data, begun)
    assert on.loss.shape == (1, 21)
    assert on.loss[0, -1] < 0.5 * fresh.loss[0, -1]
    torch.testing.assert_close(on.positions[0, :80], begun.positions[0], rtol=0, atol=1e-4)  # no geometry in this iteration
    torch.testing.assert_close(on.positions[0, 80:], data.positions[0, 80:], rtol=0, atol=1e-2)
    assert on.refined.defocus == begun.refined.defocus
    alone = Reconstructor.best(setup, refine=("probe",), iterations=5)(data, Reconstructor.best(setup)(data))
    assert alone.loss.shape == (1, 25) and alone.loss[0, -1] <= alone.loss[0, 19]


def test_data_sets_side_by_side_as_one_by_one():
    setup = scene()
    parts = [measured(setup, places(n, seed)) for seed, n in enumerate((12, 7))]
    how = Reconstructor.best(setup, refine=("probe", "positions", "affine", "intensities"), modes=2, iterations=12)
    both = how(Measurement.stack(parts))
    for b, part in enumerate(parts):
        alone = how(part)
        assert torch.equal(both.potential[b], alone.potential[0]) and torch.equal(both.loss[b], alone.loss[0])
        assert torch.equal(both.probe[b], alone.probe[0]) and torch.equal(both.positions[b, : len(part.positions[0])], alone.positions[0])


def test_where_its_input_is(monkeypatch):
    setup = scene()
    data = measured(setup, places(12))
    how = Reconstructor.best(setup, refine=("probe", "positions", "affine", "defocus", "intensities"), modes=2, iterations=9)
    there = how(data.to(fake_device.DEVICE))
    assert there.potential.device.type == there.probe.device.type == there.positions.device.type == fake_device.NAME
    monkeypatch.setattr(passes, "_plan", lambda *_: None)
    here = how(data)
    torch.testing.assert_close(there.potential.cpu(), here.potential, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"refine": ("beam",)}, "refine: expected some of probe, positions, .*, got 'beam'"),
        ({"refine": "probe"}, r"refine: expected a tuple of names, such as \('probe', 'positions'\), got 'probe'"),
        ({"modes": 2}, "modes: expected at most 1, or refine with 'probe' among the names, got 2"),
        ({"modes": 0}, "modes: expected at least 1, got 0"),
        ({"probe": torch.ones(2, 8, 8)}, r"probe: expected modes of the window's shape, \(modes, 24, 24\), got \(2, 8, 8\)"),
        ({"refine": ("positions",), "reach": 0.0}, "reach: expected a positive length in Å, got 0.0"),
    ],
)
def test_what_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(SimpleNamespace(**({"known": False} | vars(Reconstructor.best(scene())) | changes)))


def test_refused_data():
    setup = scene()
    data = measured(setup, places(5))
    with pytest.raises(ValueError, match="positions: expected fractions of the field from 0 to 1"):
        Reconstructor.best(setup, refine=("probe",))(replace(data, positions=data.positions + 3))
    many = Measurement.stack([data] * 1)
    other = Reconstructor.best(scene(object=Grid((66, 66), 0.3)), refine=("probe",), iterations=1)(many)
    with pytest.raises(ValueError, match=r"start: expected a potential of shape \(1, 64, 64\), got \(1, 66, 66\)"):
        Reconstructor.best(setup, refine=("probe",))(data, other)


def test_from_settings_and_the_command_line(tmp_path, capsys):
    chosen = override(preset("light"), {"reconstruct.refine": '["probe"]', "reconstruct.modes": "2", "reconstruct.reach": "0.5"})
    made = build.reconstructor(chosen, scene())
    assert (made.refine, made.modes, made.reach) == (("probe",), 2, 0.5)
    setup = scene()
    data = measured(setup, places(40))
    write(tmp_path / "seen.h5", Recording(setup, data))
    words = ["reconstruct", str(tmp_path / "seen.h5"), str(tmp_path / "found.h5"), "--refine", "probe,positions", "--modes", "2"]
    assert main([*words, "--reconstruct.iterations", "12", "--threads", "1"]) == 0
    assert "intensity in the probe's modes" in capsys.readouterr().out
    with h5py.File(tmp_path / "found.h5") as file:
        assert file["probe"].shape == (1, 2, 24, 24) and file["loss"].shape == (1, 12)
        assert file["refined/positions"].shape == file["refined/reported"].shape == (1, 40, 2)
    assert main([*words[:2], str(tmp_path / "more.h5"), "--refine", "beam"]) == 2
    assert "reconstruct.refine: expected 'probe', 'positions'" in capsys.readouterr().err

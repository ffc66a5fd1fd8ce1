"""Scattering factors, projected potential, unit cells and the families of specimens."""

import math
import time
from typing import get_args

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from adaptycho.physics.grid import Grid
from adaptycho.physics.optics import Setup, interaction_constant
from adaptycho.physics.specimen import (
    Family,
    amorphous,
    boundary,
    contaminate,
    crystal,
    edge,
    island,
    particles,
    potential,
    sample,
    scattering_factor,
    structure,
    structure_mask,
    vacancies,
)
from adaptycho.physics.specimen.potential import BOHR, POTENTIAL

FIELD, EXTENT = (20.0, 20.0), (30.8, 30.8)
MOS2 = structure("MoS2")
ELEMENTS = [s for s, z in atomic_numbers.items() if 1 <= z <= 103]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setup_of(shape: tuple[int, int] = (60, 60), pixel: float = 0.2, energy: float = 60e3) -> Setup:
    return Setup(field=(6.0, 6.0), object=Grid(shape, pixel), window=Grid((16, 16), pixel), detector=(16, 16), semiangle=33, energy=energy)


def covered(atoms: Atoms, unit: Atoms, field: tuple[float, float]) -> float:
    """Fraction of the field that the atoms of a crystal inside it would fill."""
    inside = (abs(atoms.positions[:, :2]) <= np.array(field[::-1]) / 2).all(1)
    area = np.linalg.norm(np.cross(unit.cell[0], unit.cell[1])) / len(unit)
    return inside.sum() * area / (field[0] * field[1])


# Scattering factors and the potential


@pytest.mark.parametrize("symbol", ELEMENTS)
def test_mott_bethe(symbol):
    # Far out only the nucleus scatters: f -> Z / (2 pi^2 a0 g^2), the condition the parameters were constrained to.
    g = torch.tensor([1e4], dtype=torch.float64)
    nuclear = atomic_numbers[symbol] / (2 * math.pi**2 * BOHR * 1e8)
    # The tables have nine digits or more; the next order in 1 / (b g^2) is below 1e-7, for b exceeds 0.1 Å^2 times a few 1e-3.
    assert float(scattering_factor(symbol, g)) == pytest.approx(nuclear, rel=1e-6)


@pytest.mark.parametrize(("symbol", "published"), [("H", 0.529), ("C", 2.509), ("Si", 5.828), ("Cu", 5.600), ("Au", 10.573)])
def test_forward_scattering_agrees_with_other_tables(symbol, published):
    # Doyle and Turner's relativistic Hartree-Fock values (hydrogen: exactly a0); fits to them differ by a few per cent.
    assert float(scattering_factor(symbol, torch.zeros(1, dtype=torch.float64))) == pytest.approx(published, rel=0.03)


def test_hydrogen_is_exact():
    # The 1s density has the form factor (1 + (pi a0 g)^2)^-2, and Mott and Bethe make it an electron scattering factor.
    g = torch.linspace(0.2, 3, 20, dtype=torch.float64)
    exact = (1 - (1 + (math.pi * BOHR * g).square()) ** -2) / (2 * math.pi**2 * BOHR * g.square())
    # Lobato and Van Dyck's fits are good to a fraction of a per cent.
    torch.testing.assert_close(scattering_factor("H", g), exact, rtol=5e-3, atol=0)


def test_potential_constant():
    planck, mass, charge = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19
    assert pytest.approx(planck**2 / (2 * math.pi * mass * charge) * 1e20, rel=1e-9) == POTENTIAL


@given(
    st.lists(st.tuples(st.sampled_from(["C", "S", "Mo", "W"]), st.floats(-5.9, 5.9), st.floats(-5.9, 5.9)), min_size=1, max_size=6),
    st.sampled_from([30e3, 60e3, 300e3]),
    st.floats(0, 0.2),
)
def test_integral_is_the_sum_of_forward_scattering_factors(atoms, energy, thermal):
    setup = setup_of(energy=energy)
    made = Atoms([a[0] for a in atoms], [(x, y, 0) for _, x, y in atoms])
    integral = float(potential(made, setup, thermal=thermal, dtype=torch.float64).sum()) * 0.2**2
    forward = sum(float(scattering_factor(a[0], torch.zeros(1, dtype=torch.float64))) for a in atoms)
    assert integral == pytest.approx(interaction_constant(energy) * POTENTIAL * forward, rel=1e-12)


def test_x_runs_along_columns_and_y_down_rows_from_the_centre():
    values = potential(Atoms("Mo", [(2.0, -1.0, 0.0)]), setup_of((60, 80)))
    row, column = divmod(int(values.argmax()), 80)
    assert (row, column) == (30 - 5, 40 + 10)


@given(st.floats(-1, 1), st.floats(-1, 1), st.sampled_from([(60, 60), (48, 70)]))
def test_translation_is_exact_to_a_fraction_of_a_pixel(dy, dx, shape):
    setup = setup_of(shape)
    atoms = Atoms("MoS", [(0.13, -0.4, 0.0), (1.7, 0.9, 0.0)])
    moved = atoms.copy()
    moved.positions += (dx, dy, 0)
    before, after = (torch.fft.fft2(potential(a, setup, dtype=torch.float64)) for a in (atoms, moved))
    ky, kx = setup.object.frequencies()
    ramp = torch.polar(torch.ones(shape, dtype=torch.float64), -2 * math.pi * (ky * dy + kx * dx))
    # All but the Nyquist frequencies, which stand for both their signs.
    keep = torch.ones(shape, dtype=torch.bool)
    keep[shape[0] // 2], keep[:, shape[1] // 2] = False, False
    torch.testing.assert_close((before * ramp)[keep], after[keep], rtol=0, atol=1e-11 * float(before.abs().max()))


def test_potential_is_the_integral_of_the_screened_coulomb_potential():
    # Hydrogen again, in space: V(r) = (COULOMB / r) (1 + r / a0) exp(-2 r / a0), integrated numerically along z.
    from scipy.integrate import quad

    from adaptycho.physics.optics import COULOMB

    def exact(radius: float) -> float:
        def along(z: float) -> float:
            r = math.hypot(radius, z)
            return COULOMB / r * (1 + r / BOHR) * math.exp(-2 * r / BOHR)

        return 2 * quad(along, 0, 12)[0]

    setup = setup_of((240, 240), 0.05)
    row = potential(Atoms("H", [(0, 0, 0)]), setup, thermal=0.0, dtype=torch.float64)[120] / interaction_constant(60e3)
    for pixels in (8, 12, 20):
        # The table's fit, and the ringing of the cut at 10 per Å.
        assert float(row[120 + pixels]) == pytest.approx(exact(pixels * 0.05), abs=0.01 * exact(0.4))


def test_thermal_motion_is_a_gaussian_blur():
    setup, atoms = setup_of(), Atoms("Mo", [(0.3, 0.1, 0)])
    ky, kx = setup.object.frequencies()
    sharp, blurred = (potential(atoms, setup, thermal=u, dtype=torch.float64) for u in (0.0, 0.12))
    expected = torch.fft.ifft2(torch.fft.fft2(sharp) * torch.exp(-2 * math.pi**2 * 0.12**2 * (ky**2 + kx**2))).real
    torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-12)


def test_absorption_never_emits():
    setup, atoms = setup_of(), Atoms("Mo", [(0.3, 0.1, 0)])
    values = potential(atoms, setup, absorption=0.1)
    assert values.dtype == torch.complex64
    assert float(values.imag.min()) == 0
    assert float(values.real.min()) < 0  # ringing, or the line above would show nothing
    torch.testing.assert_close(values.imag, 0.1 * values.real.clamp(min=0))


def test_slices_add_up_to_the_whole():
    setup = setup_of((160, 160), 0.2)
    atoms = crystal(MOS2, setup.object.extent, generator=seeded(), layers=2)
    slices = potential(atoms, setup, slices=4, dtype=torch.float64)
    assert slices.shape == (4, 160, 160)
    torch.testing.assert_close(slices.sum(0), potential(atoms, setup, dtype=torch.float64), rtol=0, atol=1e-12)
    # Two sheets of 6.15 Å; in each the lower sulphur lies in the first half, molybdenum at 3.075 Å and the upper sulphur in the second.
    weights = slices.sum((1, 2))
    assert weights[0] < 0.6 * weights[1] and weights[2] < 0.6 * weights[3]


def test_single_precision_is_enough():
    setup = setup_of((160, 160), 0.2)
    atoms = crystal(MOS2, setup.object.extent, generator=seeded())
    double = potential(atoms, setup, dtype=torch.float64)
    # Sums of some hundred terms of relative rounding 1e-7, a transform of 160 x 160.
    torch.testing.assert_close(potential(atoms, setup).double(), double, rtol=0, atol=1e-5 * float(double.max()))


def test_atoms_outside_the_grid_are_left_out():
    setup, inside = setup_of(), Atoms("Mo", [(1.0, 1.0, 0)])
    outside = inside + Atoms("Mo3", [(6.1, 0, 0), (0, -6.1, 0), (40, 40, 0)])
    assert torch.equal(potential(outside, setup), potential(inside, setup))
    assert not potential(Atoms(), setup).any()


def test_potential_says_what_is_wrong():
    atoms = Atoms("Mo", [(0, 0, 0)])
    xrays = Setup(field=(6, 6), object=Grid((60, 60), 0.2), window=Grid((16, 16), 0.2), detector=(16, 16), semiangle=33, wavelength=1.5)
    with pytest.raises(ValueError, match=r"energy: expected a beam energy in eV .* got none \(light of 1.5 Å\)"):
        potential(atoms, xrays)
    with pytest.raises(ValueError, match=r"thermal: expected a value of at least 0, got -0.1"):
        potential(atoms, setup_of(), thermal=-0.1)
    with pytest.raises(ValueError, match="absorption: expected a value of at least 0, got -1"):
        potential(atoms, setup_of(), absorption=-1.0)
    with pytest.raises(ValueError, match="slices: expected at least 1, got 0"):
        potential(atoms, setup_of(), slices=0)
    with pytest.raises(ValueError, match="slices: expected atoms in a cell with a height"):
        potential(atoms, setup_of(), slices=2)
    with pytest.raises(ValueError, match=r"species: expected a chemical element .* got 'X'"):
        potential(Atoms("X", [(0, 0, 0)]), setup_of())


@pytest.mark.parametrize("family", get_args(Family))
def test_potentials_are_quick(family, paper):
    # Training builds two dozen at a time; ten times what it takes on one core.
    potential(sample(family, MOS2, paper.field, paper.object.extent, generator=seeded()), paper)
    start = time.perf_counter()
    potential(sample(family, MOS2, paper.field, paper.object.extent, generator=seeded(1)), paper)
    assert time.perf_counter() - start < 0.3


# Unit cells


@pytest.mark.parametrize(
    ("name", "a", "symbols"), [("MoS2", 3.16, ["Mo", "S", "S"]), ("WSe2", 3.28, ["Se", "Se", "W"]), ("graphene", 2.46, ["C", "C"])]
)
def test_built_in_structures(name, a, symbols):
    unit = structure(name)
    assert sorted(unit.get_chemical_symbols()) == symbols
    lengths = unit.cell.cellpar()
    assert lengths[:2].tolist() == pytest.approx([a, a])
    assert lengths[3:].tolist() == pytest.approx([90, 90, 120])
    assert unit.positions[:, 2].min() > 0 and unit.positions[:, 2].max() < unit.cell[2, 2]


def test_structures_from_files_stand_upright(tmp_path):
    gold = bulk("Au", cubic=True)
    gold.rotate(35, (1, 2, 3), rotate_cell=True)
    path = tmp_path / "gold.cif"
    tilted = tmp_path / "POSCAR"
    write(path, gold)
    write(tilted, gold)
    for file in (path, str(tilted)):
        unit = structure(file)
        assert np.allclose(unit.cell[:], np.diag([4.08] * 3), atol=1e-5)
        tree = cKDTree(unit.repeat(3).positions)
        # Nearest neighbours of a face-centred cell.
        assert tree.query(unit.repeat(3).positions, 2)[0][:, 1].min() == pytest.approx(4.08 / math.sqrt(2), abs=1e-4)


def test_structure_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="structure: expected one of MoS2, WSe2, graphene or a structure file, got 'MoS3'"):
        structure("MoS3")
    with pytest.raises(ValueError, match=r"structure: expected one of .* got '/nowhere/x.cif'"):
        structure("/nowhere/x.cif")
    broken = tmp_path / "broken.cif"
    broken.write_text("this is not a crystal\n")
    with pytest.raises(ValueError, match=r"structure: expected a structure file that ASE can read, got .*broken\.cif"):
        structure(broken)
    molecule = tmp_path / "molecule.xyz"
    write(molecule, Atoms("CO", [(0, 0, 0), (1.1, 0, 0)]))
    with pytest.raises(ValueError, match=r"structure: expected a cell that is periodic in at least two directions, got .*molecule\.xyz"):
        structure(molecule)


# Families


@given(st.integers(0, 1000), st.sampled_from(["MoS2", "WSe2", "graphene"]))
def test_a_crystal_has_no_gap(seed, name):
    unit = structure(name)
    atoms = crystal(unit, (24.0, 30.0), generator=seeded(seed))
    assert (abs(atoms.positions[:, 0]) <= 15).all() and (abs(atoms.positions[:, 1]) <= 12).all()
    # Counting lattice points in a rectangle errs by less than the cells its rim crosses.
    rim = 2 * (24 + 30) * unit.cell.cellpar()[0]
    assert covered(atoms, unit, (24.0, 30.0)) == pytest.approx(1, abs=0.5 * rim / (24 * 30))
    holes = np.stack(np.meshgrid(np.linspace(-13, 13, 60), np.linspace(-10, 10, 60)), -1)
    assert cKDTree(atoms.positions[:, :2]).query(holes)[0].max() < unit.cell.cellpar()[0]


@pytest.mark.parametrize("rotation", [0.0, 17.0, 45.5, -100.0])
def test_the_orientation_is_found_in_the_diffraction_pattern(rotation):
    setup = setup_of((240, 240), 0.25)
    values = potential(crystal(MOS2, setup.object.extent, generator=seeded(), rotation=rotation), setup, dtype=torch.float64)
    window = torch.hann_window(240, dtype=torch.float64)
    spectrum = torch.fft.fft2((values - values.mean()) * window[:, None] * window).abs()
    ky, kx = setup.object.frequencies()
    ring = (torch.hypot(ky, kx) - 2 / (3.16 * math.sqrt(3))).abs() < 0.03
    y, x = (k.expand(240, 240)[ring] for k in (ky, kx))
    strength = spectrum[ring].square()
    # The phase of the six-fold mean is six times the angle; counter-clockwise with y down means the angle of (x, -y). The first reflection
    # of a hexagonal lattice stands 30 degrees off its first vector.
    angle = torch.atan2(-y, x)
    six = torch.angle((strength * torch.polar(torch.ones_like(angle), 6 * angle)).sum())
    found = math.degrees(float(six)) / 6 + 30
    # A reflection of width 1 / 60 per Å at a radius of 0.37 is centred to a small part of its 2.6 degrees.
    assert abs((found - rotation + 30) % 60 - 30) < 0.3


def test_rotation_is_counter_clockwise_with_y_down():
    atoms = crystal(Atoms("C", [(0, 0, 0)], cell=[2, 9, 3]), (60, 60), generator=seeded(), rotation=30.0)
    nearest = cKDTree(atoms.positions).query(atoms.positions, 2)[1]
    step = atoms.positions[nearest[:, 1]] - atoms.positions[nearest[:, 0]]
    step *= np.sign(step[:, :1])
    assert np.allclose(step, [2 * math.cos(math.pi / 6), -2 * math.sin(math.pi / 6), 0])


@given(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_strain_moves_atoms_by_the_tensor(exx, eyy, exy):
    square = Atoms("C", [(0, 0, 0)], cell=[3, 3, 3])
    strained = crystal(square, (40, 40), generator=seeded(), rotation=0.0, strain=(exx, eyy, exy)).positions[:, :2]
    cell = 3 * np.array([[1 + exx, exy], [exy, 1 + eyy]])
    steps = (strained - strained[0]) @ np.linalg.inv(cell)
    assert np.allclose(steps, steps.round(), atol=1e-9)
    assert len(strained) == pytest.approx(40**2 / np.linalg.det(cell), abs=0.5 * 160 / 3)


def test_shifts_and_rotations_are_random_and_repeatable():
    draws = [crystal(MOS2, EXTENT, generator=seeded(s)).positions for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert draws[0].shape != draws[2].shape or not np.allclose(draws[0], draws[2])


@given(st.integers(0, 100), st.floats(0, 1), st.sampled_from([None, "S", "Mo"]))
def test_vacancies_are_counted(seed, fraction, species):
    whole = crystal(MOS2, EXTENT, generator=seeded(seed))
    holed = vacancies(MOS2, EXTENT, generator=seeded(seed), fraction=fraction, species=species)
    symbols, left = (np.array(a.get_chemical_symbols()) for a in (whole, holed))
    chosen = np.ones(len(whole), bool) if species is None else symbols == species
    assert len(whole) - len(holed) == round(fraction * chosen.sum())
    if species is not None:
        assert (left != species).sum() == (~chosen).sum()
    assert {tuple(p) for p in holed.positions} <= {tuple(p) for p in whole.positions}


@pytest.mark.parametrize("family", [island, edge])
@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.sampled_from([(20.0, 20.0), (16.0, 22.0)]))
def test_filling_is_kept(family, seed, filling, field):
    unit = Atoms("C", [(0, 0, 0)], cell=[0.5, 0.5, 1])
    atoms = family(unit, field, EXTENT, generator=seeded(seed), filling=filling)
    # A dense lattice of 0.5 Å counts the area; what it errs by along an outline is random.
    assert covered(atoms, unit, field) == pytest.approx(filling, abs=0.03)


@given(st.integers(0, 10_000), st.floats(0.1, 0.7), st.integers(1, 5))
def test_particles_fill_what_they_are_asked_to(seed, filling, count):
    unit = Atoms("Au", [(0, 0, 0)], cell=[0.5, 0.5, 1])
    atoms = particles(unit, FIELD, EXTENT, generator=seeded(seed), filling=filling, count=count, support=0.0)
    # Where two meet, at most along the field's diagonal, the later one keeps about 1 Å clear.
    joints = (count - 1) * 28 * 1.0 / 400
    assert filling - 0.03 - joints < covered(atoms, unit, FIELD) < filling + 0.03


def test_islands_lie_anywhere_and_are_compact():
    centres = []
    for seed in range(200):
        atoms = island(MOS2, FIELD, EXTENT, generator=seeded(seed), filling=0.2)
        inside = atoms.positions[(abs(atoms.positions[:, :2]) <= 10).all(1), :2]
        centres.append(inside.mean(0))
        # A disc of a fifth of the field that sits in a corner has twice the radius of one in the middle.
        assert np.hypot(*(inside - inside.mean(0)).T).max() < 2.2 * math.sqrt(0.2 * 400 / math.pi)
    # n = 200 centres, spread over the field as a uniform draw cut by its rim: each standard error is below 6 / sqrt(200).
    assert abs(np.mean(centres, 0)).max() < 4 * 6 / math.sqrt(200)
    assert np.std(centres, 0).min() > 3


def test_the_outline_is_irregular():
    unit = Atoms("C", [(0, 0, 0)], cell=[0.5, 0.5, 1])

    def spread(roughness: float) -> float:
        values = []
        for seed in range(20):
            atoms = island(unit, (40.0, 40.0), (40.0, 40.0), generator=seeded(seed), filling=0.05, roughness=roughness)
            r = atoms.positions[:, :2] - atoms.positions[:, :2].mean(0)
            reach = [np.hypot(*r[s].T).max() for s in np.array_split(np.argsort(np.arctan2(*r.T)), 12)]
            values.append(np.std(reach) / np.mean(reach))
        return float(np.median(values))

    assert spread(0.3) > 2 * spread(0.0)


def test_particles_have_their_own_orientations_on_a_support():
    atoms = particles(MOS2, FIELD, EXTENT, generator=seeded(3), filling=0.3, count=3)
    tags = atoms.get_tags()
    film, crystals = atoms[tags == 0], atoms[tags == 1]
    assert set(film.get_chemical_symbols()) == {"C"} and "C" not in crystals.get_chemical_symbols()
    assert film.positions[:, 2].max() <= 15 < crystals.positions[:, 2].min()
    assert atoms.cell[2, 2] == pytest.approx(15 + 6.15)
    assert _shortest(crystals) > 1.0


@given(st.integers(0, 10_000))
def test_grains_keep_their_distance_and_their_sides(seed):
    atoms = boundary(MOS2, FIELD, EXTENT, generator=seeded(seed))
    first, second = atoms[atoms.get_tags() == 1], atoms[atoms.get_tags() == 2]
    assert len(first) and len(second)
    assert cKDTree(first.positions).query(second.positions)[0].min() >= 1.0
    # Both grains reach into the field, for the line passes through its middle half.
    assert all((abs(g.positions[:, :2]) <= 10).all(1).any() for g in (first, second))


def test_misorientation_is_the_angle_between_the_grains():
    square = Atoms("C", [(0, 0, 0)], cell=[2, 2, 2])
    atoms = boundary(square, FIELD, EXTENT, generator=seeded(1), rotation=10.0, misorientation=25.0)
    for tag, angle in ((1, 10.0), (2, 35.0)):
        grain = atoms[atoms.get_tags() == tag].positions[:, :2]
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        steps = (grain - grain[0]) @ np.array([[cos, sin], [-sin, cos]]) / 2
        assert np.allclose(steps, steps.round(), atol=1e-9), tag


@given(st.integers(0, 1000), st.floats(5, 25), st.floats(0.02, 0.15))
def test_amorphous_films_have_the_density_and_the_shortest_distance(seed, thickness, density):
    film = amorphous((16.0, 20.0), generator=seeded(seed), thickness=thickness, density=density)
    assert len(film) == round(16 * 20 * thickness * density)
    assert _shortest(film) >= 1.4
    assert film.positions[:, 2].min() >= 0 and film.positions[:, 2].max() <= thickness
    assert abs(film.positions[:, 0]).max() <= 10 and abs(film.positions[:, 1]).max() <= 8


def test_amorphous_films_are_uniform():
    film = amorphous((40.0, 40.0), generator=seeded(), thickness=20.0)
    counts = np.histogramdd(film.positions, (2, 2, 2))[0]
    # n = 3200 atoms in 8 boxes; repulsion only makes them more even than a Poisson number.
    assert abs(counts / 400 - 1).max() < 4 / math.sqrt(400)


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("field", [(20.0, 20.0), (12.0, 24.0)])
def test_every_family_by_name(family, field):
    extent = (field[0] + 10, field[1] + 10)
    first, again, other = (sample(family, MOS2, field, extent, generator=seeded(s)) for s in (4, 4, 5))
    assert np.array_equal(first.positions, again.positions)
    assert first.positions.shape != other.positions.shape or not np.allclose(first.positions, other.positions)
    assert (abs(first.positions[:, :2]) <= np.array(extent[::-1]) / 2).all()
    assert _shortest(first) >= 1.0
    assert first.cell[2, 2] >= first.positions[:, 2].max() and first.positions[:, 2].min() >= 0
    assert (first.get_tags() > 0).any()


def test_sample_passes_options_on():
    assert len(sample("amorphous", MOS2, FIELD, EXTENT, generator=seeded(), thickness=10.0)) == round(0.1 * 30.8**2 * 10)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("foam", {}, "family: expected one of crystal, vacancies, island, edge, particles, boundary, amorphous, got 'foam'"),
        ("island", {"radius": 3.0}, "island: expected options among filling, roughness, rotation, strain, layers, got 'radius'"),
        ("island", {"filling": 0.0}, "filling: expected a fraction above 0 and at most 1, got 0"),
        ("edge", {"filling": 1.5}, "filling: expected a fraction above 0 and at most 1, got 1.5"),
        ("island", {"roughness": -1.0}, "roughness: expected a value of at least 0, got -1"),
        ("edge", {"roughness": -1.0}, "roughness: expected a value of at least 0, got -1"),
        ("vacancies", {"fraction": 2.0}, "fraction: expected a fraction from 0 to 1, got 2"),
        ("vacancies", {"species": "Au"}, "species: expected one of Mo, S, got 'Au'"),
        ("particles", {"count": 0}, "count: expected at least one particle, got 0"),
        ("particles", {"support": -5.0}, "support: expected a value of at least 0, got -5"),
        ("boundary", {"separation": -1.0}, "separation: expected a value of at least 0, got -1"),
        ("amorphous", {"thickness": 0.0}, "thickness: expected a positive thickness in Å, got 0"),
        ("amorphous", {"density": 0.3}, r"density: expected atoms that fill at most 30 % of the film, got 0.3 per Å\^3 \(43 %\)"),
        ("amorphous", {"species": "Q"}, "species: expected a chemical symbol, got 'Q'"),
        ("crystal", {"layers": 0}, "layers: expected at least 1, got 0"),
        ("crystal", {"strain": (-2.0, 0.0, 0.0)}, "strain: expected a deformation well below one"),
    ],
)
def test_families_say_what_is_wrong(family, options, message):
    with pytest.raises(ValueError, match=message):
        sample(family, MOS2, FIELD, EXTENT, generator=seeded(), **options)


def test_more_atoms_than_memory_holds_are_not_made():
    for made in (lambda extent: crystal(MOS2, extent, generator=seeded()), lambda extent: amorphous(extent, generator=seeded())):
        for side in (1e5, 1e8, 1e12):
            with pytest.raises(ValueError, match=r"extent: expected a specimen of at most 1e\+07 atoms, found about"):
                made((side, side))


def test_crystal_wants_a_cell_across_the_beam():
    with pytest.raises(ValueError, match="unit: expected a cell whose first two vectors lie across the beam"):
        crystal(Atoms("C", [(0, 0, 0)]), EXTENT, generator=seeded())


# Contamination and masks


@given(st.integers(0, 1000), st.floats(0.01, 1.0), st.floats(0.01, 0.5))
def test_contamination_covers_and_weighs_what_it_is_asked_to(seed, coverage, phase):
    grid = Grid((60, 80), 0.3)
    clean = torch.rand(60, 80, generator=seeded(seed), dtype=torch.float64)
    layer = contaminate(clean, grid, phase=phase, coverage=coverage, generator=seeded(seed)) - clean
    assert float(layer.min()) >= 0
    # Differences of numbers up to one leave 1e-16; patches are thin at their rims.
    assert int((layer > 1e-15).sum()) == pytest.approx(round(coverage * 4800), abs=2)
    assert float(layer.square().sum() / round(coverage * 4800)) == pytest.approx(phase**2, rel=1e-9)


def test_contamination_is_smooth():
    grid = Grid((100, 100), 0.308)
    layer = contaminate(torch.zeros(100, 100, dtype=torch.float64), grid, coverage=1.0, generator=seeded())
    spectrum = torch.fft.fft2(layer - layer.mean()).abs().square()
    ky, kx = grid.frequencies()
    # A texture of 1.2 Å has fallen to exp(-4 pi^2 1.2^2 0.5^2) = 7e-7 of its power at 0.5 per Å; clipping adds a little.
    assert float(spectrum[torch.hypot(ky, kx) > 0.5].sum() / spectrum.sum()) < 1e-3


def test_contamination_lies_on_the_entrance_surface_and_does_not_absorb():
    grid, clean = Grid((40, 40), 0.3), torch.zeros(3, 40, 40, dtype=torch.complex64)
    dirty = contaminate(clean, grid, generator=seeded())
    assert dirty[0].real.any() and not dirty[1:].any() and not dirty.imag.any() and not clean.any()


def test_no_contamination_changes_nothing():
    clean = torch.rand(40, 40, generator=seeded())
    for options in ({"coverage": 0.0}, {"phase": 0.0}):
        assert torch.equal(contaminate(clean, Grid((40, 40), 0.3), generator=seeded(), **options), clean)


@pytest.mark.parametrize(("option", "value"), [("phase", -0.1), ("coverage", 1.5), ("coverage", -0.5)])
def test_contamination_says_what_is_wrong(option, value):
    with pytest.raises(ValueError, match=f"{option}: expected .* got {value}"):
        contaminate(torch.zeros(40, 40), Grid((40, 40), 0.3), generator=seeded(), **{option: value})


def test_mask_is_a_disc_around_each_atom_of_interest():
    grid = Grid((60, 80), 0.2)
    atoms = Atoms("MoC", [(2.0, -1.0, 0), (-3.0, 2.0, 0)], tags=[1, 0])
    mask = structure_mask(atoms, grid, 1.5)
    y, x = torch.meshgrid((torch.arange(60.0) - 30) * 0.2, (torch.arange(80.0) - 40) * 0.2, indexing="ij")
    distance = torch.hypot(y + 1, x - 2)
    # Pixels on the very rim may fall either way.
    clear = (distance - 1.5).abs() > 1e-4
    assert torch.equal(mask[clear], (distance < 1.5)[clear])


def test_mask_counts_all_atoms_where_none_is_tagged():
    grid = Grid((60, 60), 0.2)
    plain = Atoms("MoC", [(2.0, -1.0, 0), (-3.0, 2.0, 0)])
    tagged = Atoms("MoC", plain.positions, tags=[1, 2])
    assert torch.equal(structure_mask(plain, grid, 1.0), structure_mask(tagged, grid, 1.0))
    assert not structure_mask(Atoms(), grid, 1.0).any()


def _shortest(atoms: Atoms) -> float:
    return float(cKDTree(atoms.positions).query(atoms.positions, 2)[0][:, 1].min())

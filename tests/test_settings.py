"""Settings: the same after a round trip, changed by name, refused in one sentence."""

import math
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from adaptycho import settings
from adaptycho.app.cli import program
from adaptycho.physics.optics import Setup
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.settings import Settings, dump, fields, load, override, preset, update

# Half the largest number and below: what is finite stays finite when TOML writes it in decimal.
finite = st.floats(-1e300, 1e300)
positive = st.floats(1e-300, 1e300)
defocus = st.floats(-1e8, 1e8)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
trees = st.fixed_dictionaries(
    {},
    optional={
        "beam": st.one_of(
            st.fixed_dictionaries({}, optional={"energy": st.floats(1e3, 3e6), "defocus": defocus}),
            st.fixed_dictionaries(
                {
                    "wavelength": st.floats(1e-3, 1e5),
                    "aberrations": st.dictionaries(st.sampled_from(["C12", "phi12", "C30"]), st.floats(-1e12, 1e12)),
                }
            ),
        ),
        "geometry": st.fixed_dictionaries(
            {},
            optional={
                "field": st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)),
                "object": st.just("auto") | st.integers(1, 500).map(lambda n: 2 * n),
            },
        ),
        "specimen": st.fixed_dictionaries(
            {}, optional={"structure": words, "options": st.dictionaries(st.text(), finite | st.text() | st.lists(finite))}
        ),
        "scan": st.fixed_dictionaries(
            {},
            optional={
                "file": st.none() | words,
                "defocus": st.none() | defocus,
                "warm": st.booleans(),
                "seed": st.integers(0, 2**63 - 1),
                "policy": st.sampled_from(settings.POLICIES),
            },
        ),
        "reconstruct": st.fixed_dictionaries(
            {}, optional={"step": positive | st.just("auto"), "momentum": st.floats(0, 1, exclude_max=True)}
        ),
    },
)


@given(tree=trees, name=st.sampled_from(settings.PRESETS))
def test_property_toml_gives_the_same_settings(tmp_path_factory: pytest.TempPathFactory, tree: dict, name: str) -> None:
    chosen = update(preset(name), tree, "test")
    path = tmp_path_factory.mktemp("settings") / "s.toml"
    path.write_text(dump(chosen), encoding="utf-8")
    # The file says everything, so it does not matter what it is laid on.
    assert load(path) == chosen
    assert load(path, preset("light")) == chosen


def test_presets_are_table_ii_and_the_same_physics_with_larger_pixels() -> None:
    paper, light = preset("paper"), preset("light")
    assert paper == Settings()
    assert (paper.beam.energy, paper.beam.semiangle, paper.beam.defocus) == (60e3, 33.0, 0.0)
    assert (paper.scan.positions, paper.scan.subsequences, paper.scan.dose) == (250, 5, 2.14e5)
    assert (paper.reconstruct.iterations, paper.reconstruct.step, paper.reconstruct.loss) == (5, 525.0, "intensity")
    changed = {name for (name, a, _), (_, b, _) in zip(fields(paper), fields(light), strict=True) if a != b}
    sizes = {"geometry.pixel", "geometry.object", "geometry.window", "geometry.detector"}
    networks = {f"network.{name}" for name in ("hidden", "location", "structure", "image")}
    assert changed == sizes | networks | {"reconstruct.reference_step"}
    # The same lengths in Å, up to the rounding of a product of two decimal numbers.
    for name in ("object", "window"):
        a, b = (getattr(s.geometry, name) * s.geometry.pixel for s in (paper, light))
        assert math.isclose(a, b, rel_tol=1e-12)
    with pytest.raises(ValueError, match="preset: expected one of light, paper, found 'heavy'"):
        preset("heavy")


def test_best_is_the_best_of_the_reconstructor(light: Setup) -> None:
    assert Reconstructor(light, **settings.BEST) == Reconstructor.best(light)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("scan.positions", "144", 144),
        ("scan.dose", "1e3", 1000.0),
        ("scan.warm", "true", True),
        ("scan.policy", "random", "random"),
        ("scan.policy", '"random"', "random"),
        ("scan.file", "data/a recording.h5", "data/a recording.h5"),
        ("scan.defocus", "-12.5", -12.5),
        ("scan.defocus", "none", None),
        ("scan.rows", "[0.25, 0.75]", (0.25, 0.75)),
        ("geometry.object", "auto", "auto"),
        ("geometry.field", "[10, 12.5]", (10.0, 12.5)),
        ("specimen.options", "{rotation = 12.0, layers = 2}", {"rotation": 12.0, "layers": 2}),
        ("beam.aberrations", "{C30 = 1e4}", {"C30": 1e4}),
        ("reconstruct.step", "auto", "auto"),
    ],
)
def test_override_by_dotted_name(name: str, text: str, value: object) -> None:
    base = override(Settings(), {"scan.defocus": "7.0"})
    changed = {n: v for n, v, _ in fields(override(base, {name: text}))}
    assert changed.pop(name) == value
    assert changed == {n: v for n, v, _ in fields(base) if n != name}


def test_none_gives_the_default_back() -> None:
    assert override(Settings(), {"scan.positions": "none"}) == Settings()
    assert override(Settings(), {"beam.energy": "none"}).beam.energy == 60e3


def test_tables_are_replaced_whole_and_sections_key_by_key() -> None:
    base = update(Settings(), {"specimen": {"options": {"rotation": 1.0}, "count": 3}}, "test")
    changed = update(base, {"specimen": {"options": {"layers": 2}}}, "test")
    assert changed.specimen.options == {"layers": 2}
    assert changed.specimen.count == 3


def test_the_beam_is_an_energy_or_a_wavelength() -> None:
    light = override(Settings(), {"beam.wavelength": "1.5"})
    assert (light.beam.energy, light.beam.wavelength) == (None, 1.5)
    electrons = override(light, {"beam.energy": "8e4"})
    assert (electrons.beam.energy, electrons.beam.wavelength) == (8e4, None)
    assert override(electrons, {"beam.wavelength": "none"}) == electrons
    for both in ({"beam.energy": "8e4", "beam.wavelength": "1.5"}, {"beam.wavelength": "1.5", "beam.energy": "8e4"}):
        with pytest.raises(ValueError, match=r"^command line: beam: expected an energy or a wavelength, not both, found .*1\.5"):
            override(Settings(), both)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[scan\n", r": expected settings in TOML, found something else \(.*line 1"),
        ("[microscope]\na = 1\n", r": microscope: expected one of beam, .*geometry, .*specimen, .*train, found 'microscope'"),
        ("beam = 3\n", r": beam: expected a dictionary .*, found 3"),
        ("beam = 'wavelength'\n", r": beam: expected a dictionary .*, found 'wavelength'"),
        ("[scan]\nposition = 3\n", r": scan\.position: expected one of .*scan\.positions.*, found 'scan\.position'"),
        ("[scan]\npositions = 'many'\n", r": scan\.positions: expected a valid integer.*, found 'many'"),
        ("[scan]\npositions = 2.5\n", r": scan\.positions: expected a valid integer.*, found 2\.5"),
        ("[scan]\npositions = 0\n", r": scan\.positions: expected greater than or equal to 1, found 0"),
        ("[scan]\npolicy = 'greedily'\n", r": scan\.policy: expected 'heuristic', 'greedy'.*, found 'greedily'"),
        ("[scan]\ndose = -1.0\n", r": scan\.dose: expected greater than or equal to 0\.001, found -1\.0"),
        ("[scan]\ndose = inf\n", r": scan\.dose: expected a finite number, found inf"),
        ("[scan]\nrows = [0.0, 1.5]\n", r": scan\.rows: expected less than or equal to 1, found 1\.5"),
        ("[geometry]\nfield = [20.0]\n", r": geometry\.field: expected two values, found \[20\.0\]"),
        ("[geometry]\nfield = [20.0, 20.0, 20.0]\n", r": geometry\.field: expected two values, found \[20\.0, 20\.0, 20\.0\]"),
        ("[geometry]\nwindow = 33\n", r": geometry\.window: expected a multiple of 2, found 33"),
        ("[beam]\nenergy = nan\n", r": beam\.energy: expected .*, found nan"),
        ("[beam.aberrations]\nC30 = nan\n", r": beam\.aberrations: expected a finite number, found nan"),
        ("[beam]\nenergy = 6e4\nwavelength = 1.0\n", r": beam: expected an energy or a wavelength, not both, found "),
        ("[heuristic]\ncontrast = 300\n", r": heuristic\.contrast: expected less than or equal to 10, found 300"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("beam.energy", "60", "greater than or equal to 1000, found 60 (beam energy in eV"),  # keV were meant
        ("beam.energy", "6e7", "less than or equal to 3000000, found 60000000.0"),
        ("beam.semiangle", "1e18", "less than or equal to 1500, found 1e+18"),
        ("scan.defocus", "1e30", "less than or equal to 100000000, found 1e+30"),
        ("scan.dose", "1e22", "less than or equal to 1000000000000, found 1e+22 (electrons per position"),
        ("specimen.thermal", "1e308", "less than or equal to 3, found 1e+308"),
        ("specimen.options", "{rotation = nan}", "finite numbers, words, or lists of them, found {'rotation': nan}"),
        ("specimen.options", "{rotation = {a = 1}}", "finite numbers, words, or lists of them, found {'rotation': {'a': 1}}"),
        ("reconstruct.reference_side", "1000000000000000000", "less than or equal to 10000, found 1000000000000000000"),
        ("reconstruct.reference_side", "10000", "at most 1.7e+10 detector pixels in all patterns, found 4.1e+11"),
        ("scan.positions", "10000000", "at most 1.7e+10 detector pixels in all patterns, found 4.1e+10"),
        ("scan.positions", "true", "a number, found True"),
        ("scan.positions", "0x" + "f" * 9000, "less than or equal to 10000000, found a number of 36000 bits"),
        ("geometry.object", "65536", "at most 2.1e+09 pixels of potential, found 4.3e+09"),
        ("scan.file", '""', "a name in UTF-8, which TOML can hold, found ''"),
        ("scan.policy", "[" * 50_000, "'heuristic', "),
    ],
)
def test_what_no_microscope_or_memory_has_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        override(Settings(), {name: text})
    assert str(error.value).startswith(f"command line: {name}: expected {said}")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "[specimen.options]\n" + ".".join("a" * 3_000) + " = 1"], ids=["arrays", "tables"])
def test_a_file_too_deep_or_too_large_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{path}: expected settings.*, found .*nested too deep$"):
        load(path)
    path.write_text("#" * (settings.LARGEST + 1), encoding="utf-8")
    with pytest.raises(
        ValueError, match=f"^{path}: expected a settings file of at most {settings.LARGEST} bytes, found {settings.LARGEST + 1}$"
    ):
        load(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, found in (("none.toml", "found none"), ("binary.toml", "utf-8"), (".", "a folder")):
        path = tmp_path / name
        with pytest.raises(ValueError, match=f"^{path}: expected .*{found}"):
            load(path)


@pytest.mark.parametrize("extra", [[], ["--preset", "paper"], ["--beam.wavelength", "1.5"], ["--scan.defocus", "5", "--file", "a.h5"]])
def test_settings_as_printed_load_again(tmp_path: Path, extra: list[str]) -> None:
    options = [*extra, "--specimen.options", "{thickness = 3.0}", "--beam.aberrations", "{C30 = 1e4}"]
    printed = CliRunner().invoke(program.commands, ["settings", *options], catch_exceptions=False).output
    path = tmp_path / "s.toml"
    path.write_text(printed, encoding="utf-8")
    again = CliRunner().invoke(program.commands, ["settings", "--settings", str(path)], catch_exceptions=False).output
    assert again == printed
    assert dump(load(path)) == dump(load(path, preset("light")))
    # What it means stands over every value, and the two that are not set are named at the end.
    chosen = load(path)
    for name, value, meaning in fields(chosen):
        if not isinstance(value, dict):
            assert f"# {meaning}\n" in printed or f"#   {name}: {meaning}\n" in printed
    assert tomllib.loads(printed)["specimen"]["options"] == {"thickness": 3.0}


def test_a_warm_scan_is_not_stopped_by_what_it_has_seen() -> None:
    with pytest.raises(ValueError, match=r"reconstruct\.stop: expected iterations with scan\.warm, .*, found held-out"):
        update(preset("light"), {"scan": {"warm": True}, "reconstruct": {"stop": "held-out"}}, "test")

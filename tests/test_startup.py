"""What only asks the program about itself loads no numerics, and Ctrl-C while it loads is no error."""

import subprocess
import sys
import textwrap

import click
import pytest

from adaptycho.app.cli import program

HEAVY = ("torch", "numba", "scipy", "matplotlib", "ase", "h5py", "skimage", "sklearn", "numpy")


def words(group: click.Group, *before: str) -> list[list[str]]:
    """Every command with --help."""
    found = [[*before, "--help"]]
    for name, command in group.commands.items():
        found += words(command, *before, name) if isinstance(command, click.Group) else [[*before, name, "--help"]]
    return found


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)


def test_questions_about_the_program_load_no_numerics() -> None:
    asked = [["--version"], *words(program.commands), ["settings"], ["settings", "--preset", "paper", "--positions", "9"]]
    assert ["train", "reinforce", "--help"] in asked
    done = python(f"""
        import sys
        from adaptycho.app.cli import main
        for words in {asked!r}:
            assert main(words) == 0, words
            loaded = [name for name in {HEAVY!r} if name in sys.modules]
            assert not loaded, (words, loaded)
    """)
    assert done.returncode == 0, done.stderr


def test_before_main_nothing_is_loaded_that_takes_time() -> None:
    done = python("""
        import sys
        before = set(sys.modules)
        import adaptycho.app.cli
        print(sorted(set(sys.modules) - before))
    """)
    assert done.stdout == "['adaptycho', 'adaptycho.app', 'adaptycho.app.cli']\n"


@pytest.mark.parametrize("module", ["click", "pydantic", "adaptycho.app.options", "torch", "h5py"])
def test_an_interrupt_while_a_module_loads_is_no_error(module: str) -> None:
    done = python(f"""
        import sys
        class Interrupted:
            def find_spec(name, path=None, target=None):
                if name == {module!r}:
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupted)
        from adaptycho.app.cli import main
        sys.exit(main(["inspect"]))
    """)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_the_package_has_the_names_that_its_first_page_says() -> None:
    done = python("""
        import sys
        import adaptycho as ad
        assert "torch" not in sys.modules
        assert {*ad.__all__, "__version__"} <= set(dir(ad))
        assert ad.__version__.count(".") >= 1
        for name in ad.__all__:
            getattr(ad, name)
        assert ad.read(ad.example()).measurement.patterns.ndim == 4
        try:
            ad.Mesurement
        except AttributeError as error:
            assert "Mesurement" in str(error)
        else:
            raise AssertionError("a name that is none was found")
    """)
    assert done.returncode == 0, done.stderr

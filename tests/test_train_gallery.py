"""Figures and model cards of trainings: they show what the run folders say."""

import importlib.util
import json
import math
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn
from torch.nn import functional

from adaptycho import settings as tree
from adaptycho.learn import plots, stages, trainings
from adaptycho.scan.episode import run as scan
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.autoencoder import Autoencoder, Encoder
from adaptycho.scan.networks.field import Field
from adaptycho.scan.networks.recurrent import Recurrent
from adaptycho.settings import Settings
from adaptycho.types import Observation

TINY = {
    "geometry": {"field": [6.0, 6.0], "object": "auto"},
    "scan": {"subsequences": 3},
    "practice": {"positions": [12], "pool": 2, "validation": 1},
    "reconstruct": {"iterations": 2, "reference_side": 12},
    "network": {"kind": "recurrent", "image": 64, "hidden": 16, "location": 8, "structure": 8},
    "train": {"shares": 1, "every": 1, "encode_steps": 1, "imitate_steps": 2, "reinforce_steps": 2}
    | {"encode_batch": 2, "imitate_batch": 2, "reinforce_batch": 2},
}


def tiny(**sections: dict[str, object]) -> Settings:
    return tree.update(tree.update(tree.preset("light"), TINY, "test"), sections, "test")


def silently(items, total: int, what: str):
    return items


def written(folder: Path, settings: Settings, log: list[dict[str, object]]) -> Path:
    """A run folder with a log and nothing else."""
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text(tree.dump(settings))
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    return folder


def reinforced(values: list[float | None], start: int = 1) -> list[dict[str, object]]:
    return [{"course": "reinforce", "step": i, "reward": v} for i, v in enumerate(values, start)]


def validated(course: str, scores: dict[int, float | None]) -> list[dict[str, object]]:
    return [{"course": course, "step": step, "validation": {"score": v}, "seconds": 1.0} for step, v in scores.items()]


def texts(figure: Figure) -> set[str]:
    figure.draw_without_rendering()
    return {text.get_text() for text in figure.findobj(Text)}


def band(figure: Figure, i: int = 0) -> set[tuple[float, float]]:
    return {(float(x), float(y)) for path in figure.axes[0].collections[i].get_paths() for x, y in path.vertices}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "tiny-3"
    trainings.create(folder, tiny(train={"seed": 3}), ("autoencoder", "imitate", "reinforce"), None)
    trainings.execute(folder, silently)
    return folder


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", Path(__file__).parents[1] / "experiments" / "publish.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- learning curves


def test_curves_are_running_means_over_runs(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 30))
    folders = [written(tmp_path / f"a-{i}", tiny(train={"seed": i}), reinforced(v.tolist())) for i, v in enumerate(values)]
    figure = plots.learning_curves({"Voronoi": folders, "shared": folders[:1]})
    assert {"Voronoi (3 runs)", "shared (1 run)", "reward, mean of 11 steps", "step of reinforcement"} <= texts(figure)
    assert any("bootstrap interval over runs" in text for text in texts(figure))
    steps, shown = figure.axes[0].lines[0].get_xydata().T
    np.testing.assert_array_equal(steps, np.arange(1, 31))
    smooth = np.array([[row[max(0, i - 5) : i + 6].mean() for i in range(30)] for row in values])
    np.testing.assert_allclose(shown, smooth.mean(0), atol=1e-12)  # rounding
    # The expanded interval of three values is their range, with so many resamplings.
    ends = band(figure)
    for i in (0, 12, 29):
        for end in (smooth[:, i].min(), smooth[:, i].max()):
            assert min(abs(y - end) for x, y in ends if x == i + 1) < 1e-9  # rounding of the mean of three equal numbers
    # Of one run there is no interval.
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), smooth[0], atol=1e-12)
    alone = texts(plots.learning_curves({"Voronoi": folders[:1]}))
    assert not any("bootstrap" in text for text in alone)


def test_curves_end_where_the_shortest_run_does_and_leave_out_what_diverged(tmp_path: Path) -> None:
    long = written(tmp_path / "long", tiny(), reinforced([1.0] * 20 + [None] * 20))
    short = written(tmp_path / "short", tiny(), reinforced([3.0] * 36))
    nothing = written(tmp_path / "nothing", tiny(), validated("imitate", {0: 0.5}))
    steps, mean = plots.learning_curves({"a": [long, short, nothing]}).axes[0].lines[0].get_xydata().T
    assert steps[-1] == 36
    # Steps 1 to 25 have a finite one among the eleven round them; beyond them the worst of the runs counts (`metrics.statistics`).
    np.testing.assert_allclose(mean, [2.0] * 25 + [3.0] * 11)
    with pytest.raises(ValueError, match="reward: expected runs with a log of it in course reinforce, found none"):
        plots.learning_curves({"a": [nothing]})


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", tiny(), validated("reinforce", {step: step / 1000 for step in range(1001)}))
    figure = plots.learning_curves({"a": [folder]}, "validation")
    shown = figure.axes[0].lines[0].get_xydata()
    assert len(shown) == 200 and shown[0].tolist() == [0, 0] and shown[-1].tolist() == [1000, 1]
    np.testing.assert_allclose(shown[:, 1], shown[:, 0] / 1000)  # not smoothed
    assert {"validation score", "a (1 run)"} <= texts(figure)


def test_progress_puts_one_course_after_the_other(tmp_path: Path) -> None:
    log = validated("autoencoder", {0: -0.5, 4: -0.1})
    folder = written(
        tmp_path / "a", tiny(), log + validated("imitate", {0: 0.2, 6: 0.3}) + validated("reinforce", {0: 0.3, 5: None, 9: 0.4})
    )
    figure = plots.progress(folder)
    assert {"imitation", "reinforcement", "SSIM on validation specimens"} <= texts(figure)
    first, second = (line.get_xydata() for line in figure.axes[0].lines)
    np.testing.assert_array_equal(first, [[0, 0.2], [6, 0.3]])
    np.testing.assert_array_equal(second, [[6, 0.3], [11, math.nan], [15, 0.4]])
    alone = plots.progress(written(tmp_path / "b", tiny(), log))
    assert {"autoencoder", "− mean squared error"} <= texts(alone)
    truth = written(tmp_path / "c", tiny(practice={"reference": "truth"}), validated("imitate", {0: 0.2}))
    assert "correlation inside the structure" in texts(plots.progress(truth))


def test_trainings_are_grouped_by_everything_but_the_seed(tmp_path: Path) -> None:
    def made(name: str, **train: object) -> Path:
        return written(tmp_path / name, tiny(train=train), [])

    v, w, s = made("v-1", seed=1), made("v-2", seed=2, processes=2, shares=2, every=5), made("s-1", seed=1, credit="shared")
    x = made("v-3", seed=3)
    # More shares are another division into batches.
    assert list(plots.grouped([v, x, s]).items()) == [("Voronoi reward", [v, x]), ("shared reward", [s])]
    assert len(plots.grouped([v, w])) == 2
    assert plots.grouped([v, x]) == {"v": [v, x]}
    rates = made("r-1", reinforce_rate=1e-3)
    assert list(plots.grouped([v, rates])) == ["reinforce_rate 1e-05", "reinforce_rate 0.001"]
    both = [made("r-7", reinforce_rate=1e-3, sigma=0.02), made("s-2", credit="shared", gamma=0.5), made("r-8", gamma=0.25)]
    assert list(plots.grouped(both)) == ["r", "s", "r 2"]


# --- one training


def test_everything_that_a_training_gives_is_drawn(trained: Path, tmp_path: Path) -> None:
    drawn = plots.draw([trained], tmp_path / "figures")
    single = {f"{name}-tiny" for name in ("progress", "voronoi", "compression")}
    curves = {"reward-reinforce", "ssim-reinforce", "validation-imitate", "validation-reinforce"}
    assert {path.stem for path in drawn} == single | curves | {"trajectories-imitate", "trajectories-reinforce"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in drawn}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    empty = written(tmp_path / "empty", tiny(), [])
    assert plots.draw([empty], tmp_path / "none") == []
    with pytest.raises(ValueError, match="empty: expected the weights of a policy, found none"):
        plots.voronoi(empty)
    with pytest.raises(ValueError, match="expected a settings file, found none"):
        plots.draw([tmp_path / "no"], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="runs: expected at least one folder"):
        plots.draw([], tmp_path / "none")


def test_trajectories_are_shown_over_the_specimen_that_was_scanned(trained: Path, tmp_path: Path) -> None:
    """Positions were kept while the policy was trained; the specimen behind them is made again."""
    settings = tree.load(trained / "settings.toml")
    autoencoder = library.load(trained / "autoencoder.safetensors")
    assert isinstance(autoencoder, Autoencoder)
    work = stages.look(settings)
    with torch.no_grad():
        policy = library.scanner(stages.network(settings, autoencoder.encoder))
        *_, last = scan(work.microscope, policy, work.reconstructor, work.lengths, seed=work.seed)
    kept = np.load(trained / "pictures" / "imitate-00000.npy")
    np.testing.assert_array_equal(last.seen.positions[0].numpy(), kept)
    figure = plots.trajectories({"with C1": trained}, "imitate")
    survey, begin, end = figure.axes[0].collections[1:]
    last_kept = np.load(trained / "pictures" / "imitate-00002.npy")
    for found, expected in ((survey, kept[:4]), (begin, kept[4:]), (end, last_kept[4:])):
        np.testing.assert_allclose(np.asarray(found.get_offsets())[:, ::-1] / 6, expected, atol=1e-6)  # single precision
    assert len(figure.axes[0].collections[0].get_paths()[0].vertices) == 3  # steps 0, 1 and 2
    phase = work.reference[0].double().numpy()
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), phase - np.median(phase), atol=1e-6)  # the same
    turned = written(tmp_path / "turned", tiny(evaluate={"validation": [1_050_000, 1_100_000]}), [])
    (turned / "pictures").symlink_to(trained / "pictures")
    with pytest.raises(ValueError, match="turned: expected a scan of the same specimen as the others"):
        plots.trajectories({"first": trained, "turned": turned}, "imitate")
    assert [list(named) for named in plots._comparable({"a": trained, "b": turned, "c": trained})] == [["a", "c"], ["b"]]
    with pytest.raises(ValueError, match=r"expected positions reinforce-\*\.npy, found none"):
        plots.trajectories({"none": written(tmp_path / "none", tiny(), [])})


def test_what_was_decoded_is_back_in_rad(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that keeps everything decodes to the reconstruction, interpolated to the size of the code's images."""
    lossless = Autoencoder((2,), 64)
    lossless.encoder.layers, lossless.decoder = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    monkeypatch.setattr(library, "load", lambda path: lossless)
    figure = plots.compression(trained)
    given, decoded = (torch.from_numpy(np.array(figure.axes[i].images[0].get_array())) for i in (0, 5))
    small = functional.interpolate(given[None, None], size=(64, 64), mode="bicubic", antialias=True)[0, 0]
    # Both are shown less their medians; single precision of the standardisation.
    difference = decoded - small
    assert float((difference - difference.mean()).abs().max()) < 1e-5 * float(small.abs().max())
    monkeypatch.setattr(library, "load", lambda path: Encoder())
    with pytest.raises(ValueError, match="expected an autoencoder, found a Encoder"):
        plots.compression(trained)


# --- model cards


def published(publish: ModuleType, run: Path, root: Path, command: str = "", *more: str) -> int:
    for name in ("evaluation", "limits"):
        (root / f"{name}.md").write_text(f"What the {name} says.\n")
    (root / "tiny.toml").write_text(tree.dump(tiny()))
    command = command or f"adaptycho train all --settings {root / 'tiny.toml'} --train.seed 3 --out tiny"
    words = ["--command", command, "--commit", "0123abc", "--evaluation", str(root / "evaluation.md"), "--limits", str(root / "limits.md")]
    return publish.main([str(run), "small", *words, "--root", str(root), *more])


def test_a_policy_is_published_with_its_card(publish: ModuleType, trained: Path, tmp_path: Path) -> None:
    assert published(publish, trained, tmp_path) == 0
    kept = weights.load(tmp_path / "src" / "adaptycho" / "scan" / "networks" / "shipped" / "small.safetensors")
    best = weights.load(trained / "reinforce.safetensors")
    assert {k: v for k, v in kept.card.items() if k != "training"} == best.card
    assert kept.card["training"]["commit"] == "0123abc" and kept.card["training"]["seeds"] == [3]
    assert kept.card["training"]["torch"] == torch.__version__
    for name, tensor in best.tensors.items():
        # Half a unit in the last of 11 places, and half the smallest subnormal number.
        assert bool(((kept.tensors[name] - tensor).abs() <= tensor.abs() / 2048 + 2**-25).all()), name
    page = (tmp_path / "docs" / "models" / "small.md").read_text()
    for text in ("What the evaluation says.", "What the limits says.", "$ adaptycho train all --settings", "commit 0123abc", "seed 3"):
        assert text in page
    assert (tmp_path / "docs" / "models" / "small.png").stat().st_size > 1000 and "(small.png)" in page
    told = page.split("```toml\n")[1].split("```")[0]
    assert tree.validate(tomllib.loads(told), "card") == tree.load(trained / "settings.toml")
    network = library.load(trained / "reinforce.safetensors")
    learnt = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("encoder."))
    assert f"{learnt:,} parameters that learn" in page
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    scores = [e["validation"]["ssim"] for e in log if e["course"] == "imitate" and "validation" in e]
    row = next(line for line in page.splitlines() if line.startswith("| 3 | imitate | 2 |"))
    assert f"| {scores[0]:.3f} → {max(scores):.3f} |" in row


def test_what_is_not_the_run_is_not_published(
    publish: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path / "other", tiny(train={"seed": 4, "sigma": 0.1}), [])
    unfinished = written(tmp_path / "tiny-3", tiny(train={"seed": 3}), validated("imitate", {0: 0.5, 1: 0.6}))
    (unfinished / "run.json").write_text(json.dumps(json.loads((trained / "run.json").read_text()) | {"courses": ["imitate"]}))
    mistakes = {
        "expected `adaptycho train all|imitate|reinforce ...`, got 'adaptycho scan'": (trained, "adaptycho scan"),
        "expected one that gives the settings": (trained, "adaptycho train all --recipe lattice --out tiny"),
        "No such option": (trained, "adaptycho train all --sigma 3 --out tiny"),
        "found other settings": (trained, "", "--others", str(other)),
        "expected a finished training, found 1 of 2 steps in course imitate": (unfinished, ""),
    }
    for message, (run, command, *more) in mistakes.items():
        assert published(publish, run, tmp_path, command, *more) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "src").exists() and not (tmp_path / "docs" / "models").exists()


@pytest.mark.parametrize("kind", ["field", "recurrent"])
def test_half_precision_proposes_nearly_the_same(tmp_path: Path, kind: str) -> None:
    """Also far from where a network begins, where there is no even scan to fall back to."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Field((16, 16)) if kind == "field" else Recurrent([12] * 3, Encoder((4, 8), 64), hidden=32, start="scratch")
    with torch.no_grad():
        if isinstance(network, Field):
            for p in network.out.parameters():
                p[1:] = torch.randn(p[1:].shape, generator=generator)  # displacements; the density stays flat
    weights.save(tmp_path / "half.safetensors", network, library.described(network), half=True)
    potential = torch.randn(2, 40, 40, generator=generator)
    positions = torch.rand(2, 12, 2, generator=generator)
    seen = Observation(potential, positions, torch.ones(2, 12), (12.0, 12.0), 1.0, 1.5, 12, 36)
    with torch.no_grad():
        (full, _), (half, _), (even, _) = (
            n(seen, None) for n in (network.eval(), library.load(tmp_path / "half.safetensors"), reset(network))
        )
    spread = float((full - even).abs().max())
    assert spread > 0.01
    # Every weight is off by at most 1/2048 of itself; errors of the many weights of a layer average out, so the layers may add up.
    assert 0 < float((full - half).abs().max()) < 2 / 2048 * spread


def reset(network: nn.Module) -> nn.Module:
    """The network as it is before it has learnt anything, or proposing the middle of nothing."""
    new = library.build(library.described(network), "test")
    if isinstance(new, Recurrent):
        new.initial.zero_()
        for p in new.heads.parameters():
            nn.init.zeros_(p)
    return new.eval()

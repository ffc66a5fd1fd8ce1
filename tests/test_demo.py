"""The tour: its numbers, its page, and that the adaptive scan wins it."""

import json
import math
from pathlib import Path

import click
import pytest

from adaptycho import settings
from adaptycho.app import cli, demo
from adaptycho.draw import report
from adaptycho.metrics import relative_improvement

OURS = demo.OURS


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What `adaptycho demo --json` prints with two specimens, with a smaller full scan and fewer iterations than usual."""
    with pytest.MonkeyPatch.context() as patch:
        # 40 x 40 positions instead of 100 x 100, each with a step that is longer in proportion.
        light = {"reference_side": 40, "reference_step": 50.0 * (100 / 40) ** 2}
        patch.setitem(settings._LIGHT, "reconstruct", light)
        # 6 iterations instead of 20 on the recording, and room for few of the pictures.
        patch.setitem(settings.BEST, "iterations", 6)
        patch.setattr(report, "LIMIT", 600_000)
        printed: list[str] = []
        patch.setattr(click, "echo", lambda text, **_: printed.append(text))
        out = tmp_path_factory.mktemp("demo") / "tour"
        assert cli.main(["demo", "--out", str(out), "--specimens", "2", "--json", "--threads", "1"]) == 0
    (text,) = printed
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_keys(found: dict) -> None:
    by_class = {"ssim", "ssim_ci", "ssim_aligned", "correlation", "q_ssim_vs_random", "q_ssim_vs_best_baseline"}
    assert found.keys() == by_class | {"seconds", "report"}
    for key in by_class:
        assert found[key].keys() == {"simulated", "recorded"}
    for key in ("ssim", "ssim_ci", "ssim_aligned", "correlation"):
        for name, part in found[key].items():
            assert tuple(part) == demo.STRATEGIES[name]
    assert found["seconds"] > 0


def test_numbers_agree_with_each_other(found: dict) -> None:
    for part, ssim in found["ssim"].items():
        ours, others = ssim[OURS[part]], [ssim[name] for name in demo.CONVENTIONAL]
        # Four decimals are printed: an error of 5e-5 in either score, and in what is made of them.
        slack = 5e-5 * (1 + 2 / min(ssim.values()) * max(1.0, ours / min(ssim.values())))
        assert math.isclose(found["q_ssim_vs_random"][part], relative_improvement(ours, ssim["random"]), abs_tol=slack)
        assert math.isclose(found["q_ssim_vs_best_baseline"][part], relative_improvement(ours, max(others)), abs_tol=slack)
        for name, (low, high) in found["ssim_ci"][part].items():
            assert low - 1e-4 <= ssim[name] <= high + 1e-4
            assert -1 <= found["correlation"][part][name] <= 1


def test_the_adaptive_scan_wins(found: dict) -> None:
    assert found["q_ssim_vs_random"]["simulated"] > 0.15
    assert found["q_ssim_vs_best_baseline"]["simulated"] > 0
    assert found["q_ssim_vs_random"]["recorded"] > 0


def test_page_and_pictures(found: dict) -> None:
    file = Path(found["report"])
    page = file.read_text(encoding="utf-8")
    for word in ("Simulated MoS2", "Recorded rotavirus particles", *demo.STRATEGIES["simulated"]):
        assert word in page
    assert f"{found['ssim']['simulated']['adaptive']:.3f}" in page
    assert "nan" not in page.split("data:image")[0]
    for name in ("simulated.png", "simulated-adaptive.png", "recorded.png", "recorded-heuristic.png"):
        assert (file.parent / name).read_bytes().startswith(b"\x89PNG")


def test_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: dict) -> None:
    monkeypatch.setattr(demo, "run", lambda out, *, seed, specimens, tell: found)
    assert cli.main(["demo", "--threads", "1"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for part in ("simulated", "recorded"):
        assert f"{part}: SSIM against the reference" in said.out
        assert f"the adaptive scan: {100 * found['q_ssim_vs_random'][part]:+.1f} % over random" in said.out
    assert found["report"] in said.out


def test_specimens_and_seed_reach_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def stop(chosen: settings.Settings) -> None:
        asked.update(count=chosen.specimen.count, seed=chosen.scan.seed)
        raise ValueError("far enough")

    monkeypatch.setattr(demo.build, "simulated", stop)
    with pytest.raises(ValueError, match="far enough"):
        demo.run(Path("nowhere"), seed=5, specimens=3)
    assert asked == {"count": 3, "seed": 5}

"""Comparing strategies: same specimens, same dose, same scores as the metrics give."""

import math

import pytest
import torch

from adaptycho import metrics
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.runs.scores import Scores, compare, improvement, score
from adaptycho.scan.episode import run
from adaptycho.scan.policies.fixed import Fixed
from adaptycho.scan.policies.heuristic import Heuristic
from adaptycho.settings import build, preset, update


def test_score_is_the_three_metrics(generator: torch.Generator) -> None:
    image, reference = torch.rand(2, 3, 16, 18, generator=generator)
    found = score(image, reference)
    assert torch.equal(found.ssim, metrics.ssim(image, reference))
    assert torch.equal(found.ssim_aligned, metrics.ssim_aligned(image, reference))
    assert torch.equal(found.correlation, metrics.correlation(image, reference))
    assert found.of(1) == {name: float(getattr(found, name)[1]) for name in ("ssim", "ssim_aligned", "correlation")}
    perfect = score(reference, reference)
    for name in ("ssim", "ssim_aligned", "correlation"):
        # Double precision over 288 pixels.
        assert torch.allclose(getattr(perfect, name), torch.ones(3, dtype=torch.float64), atol=1e-10)


def test_compare_gives_every_strategy_the_same_and_scores_each_sub_sequence() -> None:
    chosen = update(preset("light"), {"geometry": {"field": [8.0, 6.0], "object": "auto"}, "specimen": {"count": 2}}, "test")
    source = build.simulated(chosen)
    reference = build.truth_in_field(source)
    descent = Reconstructor(source.setup, 2)
    scanners = {"ours": Heuristic(), "chance": Fixed("random"), "rows": Fixed("raster")}
    outcomes = list(compare(source, scanners, descent, [6, 5], reference, seed=4))
    assert [o.strategy for o in outcomes] == ["ours", "chance", "rows"]
    for outcome in outcomes:
        alone = list(run(source, scanners[outcome.strategy], descent, [6, 5], seed=4))
        for state, found, again in zip(outcome.states, outcome.scores, alone, strict=True):
            assert torch.equal(state.potential, again.potential)
            assert isinstance(found, Scores)
            assert torch.equal(found.ssim, metrics.ssim(state.potential, reference))
    doses = {float(o.states[-1].seen.dose.sum()) for o in outcomes}
    assert len(doses) == 1


def test_improvement_is_relative_to_the_named_or_the_best_other() -> None:
    scores = {"ours": torch.tensor([0.5, 0.7]), "chance": torch.tensor([0.4, 0.4]), "rows": torch.tensor([0.3, 0.7])}
    # Means 0.6, 0.4 and 0.5, in single precision.
    assert math.isclose(improvement(scores, "ours", "chance"), 0.5, rel_tol=1e-6)
    assert math.isclose(improvement(scores, "ours"), 0.2, rel_tol=1e-6)
    assert math.isclose(improvement(scores, "chance"), -1 / 3, rel_tol=1e-6)
    assert improvement(scores, "rows", "rows") == 0
    with pytest.raises(KeyError):
        improvement(scores, "ours", "nobody")

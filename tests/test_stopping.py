"""When a reconstruction stops by what is held back, and how conjugate gradients descend."""

import math
from dataclasses import replace

import pytest
import torch

from adaptycho.reconstruct import checks, conjugate, held_out
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.stopping import PATIENCE, stop, stopping
from test_priors import likeness, scanned, specimen
from test_reconstruct import data, small

# --- stopping ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["amorphous", "crystal"])
def test_it_stops_near_the_best_iteration_without_the_truth(family):
    """Few electrons overfit within a few iterations, many take dozens; judged by correlation with the truth, which it does not see."""
    found, lost, fixed, stops = specimen(family, 7000), 0.0, 0.0, []
    for dose in (300.0, 1000.0, 2e5):
        seen = scanned(found, dose)
        how = Reconstructor.best(found.setup, iterations=60)
        every = [likeness(one.phase, found) for one in how.steps(seen)]
        stops.append(stop(how, seen).iterations)
        lost += max(every) - every[stops[-1] - 1]
        fixed += max(every) - every[-1]
    assert stops[0] < 10 < stops[-1]
    assert lost < 0.6 * fixed


def test_a_reconstructor_stops_by_itself():
    found = specimen("island", 7001)
    seen = scanned(found, 300.0)
    halting = Reconstructor.best(found.setup, iterations=60, stop="held-out")
    result = halting(seen)
    chosen = stop(halting, seen)
    assert chosen.stop == "iterations"
    assert result.loss.shape[1] == chosen.iterations < 60
    assert torch.equal(result.phase, chosen(seen).phase)
    with pytest.raises(ValueError, match="stop: expected 'iterations' to go on from a reconstruction"):
        halting(seen, result)


def test_it_gives_up_after_a_while_and_says_how_far_it_is():
    found = specimen("island", 7002)
    tried = [one.iterations for one in stopping(Reconstructor.best(found.setup, iterations=200), scanned(found, 300.0))]
    assert tried == sorted(tried)
    assert len(tried) == tried[-1] + PATIENCE


def test_where_counts_are_not_electrons_positions_are_held_back(monkeypatch):
    found = specimen("crystal", 7003)
    seen = scanned(found, 3000.0)
    monkeypatch.setattr(held_out, "divided", None)  # would fail
    scaled = replace(seen, patterns=seen.patterns * 4.7, dose=seen.dose * 4.7)
    assert 1 <= stop(Reconstructor.best(found.setup, iterations=30, counts_per_electron=4.7), scaled).iterations <= 30
    few = scaled.take(torch.arange(4))
    assert stop(Reconstructor.best(found.setup, iterations=30, counts_per_electron=4.7), few).iterations == 30


@pytest.mark.parametrize("refine", [("probe",), ("positions", "intensities")])
def test_what_is_refined_is_judged_too(refine):
    found = specimen("crystal", 7004)
    seen = scanned(found, 1e4)
    assert 1 <= stop(Reconstructor.best(found.setup, iterations=30, refine=refine), seen).iterations <= 30


# --- conjugate gradients ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["potential", "complex"])
@pytest.mark.parametrize("scaling", ["none", "illumination"])
def test_conjugate_gradients_reach_a_minimum_that_momentum_takes_longer_for(kind, scaling):
    setup = small()
    seen = data(setup, 60, noise=False)
    how = {"kind": kind, "scaling": scaling, "loss": "amplitude", "step": "auto"}
    found = Reconstructor(setup, iterations=40, method="conjugate", **how)(seen)
    assert (found.loss[0].diff() <= 0).all()
    plain = Reconstructor(setup, iterations=40, momentum=0.7, **how)(seen)
    assert float(found.loss[0, -1]) < float(plain.loss[0, -1])
    _, gradient = Reconstructor(setup, method="conjugate", **how).gradient(seen, found.potential)
    _, before = Reconstructor(setup, method="conjugate", **how).gradient(seen, torch.zeros_like(found.potential))
    assert float(gradient.norm()) < 1e-2 * float(before.norm())


def test_a_line_is_searched_to_where_it_is_flat():
    """The gradient where a search ends is nearly at right angles to the direction that it followed."""
    setup = small()
    seen = data(setup, 60, noise=False)
    how = Reconstructor(setup, iterations=1, method="conjugate", loss="amplitude", step="auto", scaling="illumination")
    state = None
    for _ in range(8):
        state = how(seen, state)
        _, gradient = replace(how, scaling="none").gradient(seen, state.potential)
        direction = state.velocity[0]
        assert state.held is not None
        start = abs(float((state.held[1][0] * direction).sum()))
        # `FLAT` of the slope, or the lowest of all looks, 0.13 as measured.
        assert abs(float((gradient[0] * direction).sum())) < 0.2 * start


def test_conjugate_gradients_go_on_from_where_they_were():
    setup = small()
    seen = data(setup, 60)
    how = {"method": "conjugate", "loss": "poisson", "step": "auto", "scaling": "illumination"}
    whole = Reconstructor(setup, iterations=9, **how)(seen)
    first = Reconstructor(setup, iterations=4, **how)(seen)
    rest = Reconstructor(setup, iterations=5, **how)(seen, first)
    assert torch.equal(whole.potential, rest.potential)
    assert torch.equal(whole.loss, rest.loss)


def test_where_there_is_nothing_to_gain_they_stay():
    setup = small()
    seen = data(setup, 20, noise=False)
    truth = Reconstructor(setup, iterations=300, method="conjugate", loss="amplitude", step="auto", scaling="illumination")(seen)
    more = Reconstructor(setup, iterations=3, method="conjugate", loss="amplitude", step="auto", scaling="illumination")(seen, truth)
    assert float(more.loss[0, -1]) <= float(truth.loss[0, -1])
    assert more.potential.isfinite().all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"method": "conjugate", "refine": ("probe",)},
            "method: expected momentum with probe refined, got 'conjugate', which seeks one slice of an object and nothing else",
        ),
        (
            {"method": "conjugate", "prior": "atoms", "loss": "poisson"},
            "method: expected momentum with a prior, got 'conjugate', which seeks one slice of an object and nothing else",
        ),
        (
            {"method": "conjugate", "refine": "auto", "slices": 2},
            "method: expected momentum with 2 slices, got 'conjugate', which seeks one slice of an object and nothing else",
        ),
    ],
)
def test_what_cannot_be_is_refused(how, message):
    with pytest.raises(ValueError) as error:
        Reconstructor.best(small(), **how)
    assert str(error.value) == message


@pytest.mark.parametrize(("what", "names", "value"), [("method", "METHODS", "conjugate"), ("stop", "STOPS", "held-out")])
def test_names_that_there_are_not_are_refused(what, names, value, monkeypatch):
    monkeypatch.setattr(checks, names, ("one", "other"))
    with pytest.raises(ValueError, match=f"{what}: expected one of one, other, got"):
        Reconstructor.best(small(), **{what: value})


@pytest.mark.parametrize("undecided", ["refine", "prior"])
def test_what_is_undecided_cannot_be_stopped(undecided):
    setup = small()
    with pytest.raises(ValueError, match=f"{undecided}: expected it to be decided before iterations are counted, got 'auto'"):
        stop(Reconstructor.best(setup, **{undecided: "auto"}), data(setup, 9))


def test_a_line_that_leads_nowhere_finite_is_looked_at_nearer():
    """As where absorption grows beyond all bounds."""
    steep = torch.tensor([[1.0]])

    def evaluate(potential):
        value = float(potential)
        return (value**2, 2 * potential) if abs(value) < 2 else (math.nan, potential * math.nan)

    line = conjugate.Line(steep, 100.0, torch.zeros_like(steep))
    losses = [conjugate.advance(evaluate, torch.ones(()), line) for _ in range(6)]
    assert losses[-1] < 1e-3 * losses[0]

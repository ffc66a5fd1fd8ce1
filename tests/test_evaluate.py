"""The judge: fair rules, disjoint specimens, results that are kept, and the same table wherever the work is done."""

import ast
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptycho
from adaptycho import formats, settings
from adaptycho.app import cli, tasks
from adaptycho.compare import archive, provenance, race, search, strategies, table, trial
from adaptycho.compare.ledger import Ledger
from adaptycho.compare.trial import Plan
from adaptycho.metrics.atoms import column_error
from adaptycho.samples import sample
from adaptycho.settings import Settings, build, policies

SMALL = {
    "geometry": {"field": (8.0, 8.0), "object": "auto"},
    "scan": {"positions": 16, "dose": 1e4, "subsequences": 2},
    "specimen": {"family": "island", "options": {"filling": 0.4}},
    "evaluate": {"specimens": 3, "tuning": 2, "defoci": (0.0, 60.0), "dense": 25, "test": (1_200_000, 1_300_000)},
    "reconstruct": {"reference_side": 10},
}


def small(protocol: str = "best", **sections: dict) -> Settings:
    base = settings.update(settings.preset("light"), race.PROTOCOLS[protocol].changes, "test")
    return settings.update(settings.update(base, SMALL, "test"), sections, "test")


def silent(items, total, what):
    return items


def judged(cell: Settings, names: list[str], ledger: Ledger | None = None, protocol: str = "best", **where) -> race.Cell:
    where = where or {"workers": 1}
    return race.judge([cell], race.PROTOCOLS[protocol], names, ledger or Ledger(), progress=silent, **where)[0]


def without_times(found: dict) -> dict:
    return {k: v for k, v in found.items() if not k.startswith("seconds")}


def test_ranges_of_specimens_do_not_meet() -> None:
    e = Settings().evaluate
    assert not set(range(*e.train)) & set(range(*e.test))
    with pytest.raises(ValueError, match=r"evaluate: expected disjoint ranges of specimens, .*found"):
        settings.update(Settings(), {"evaluate": {"train": (0, 10), "test": (9, 20), "validation": (30, 40)}}, "test")


def test_tuning_sees_training_specimens_only_and_the_report_test_specimens_only() -> None:
    ledger, cell = Ledger(), small()
    judged(cell, ["raster"], ledger)
    e = cell.evaluate
    assert {r["specimen"] for r in ledger if r["kind"] == "tuning"} == set(range(e.train[0], e.train[0] + 2))
    assert {r["specimen"] for r in ledger if r["kind"] == "test"} == set(range(e.test[0], e.test[0] + 3))


@pytest.mark.parametrize("family", ["crystal", "vacancies", "island", "particles", "boundary", "amorphous"])
def test_every_strategy_spends_the_same_dose_on_every_family(family: str) -> None:
    cell = small(specimen={"family": family, "options": {}})
    specimen = sample.simulated(cell, 5)
    for name in race.everything(race.PROTOCOLS["paper"], cell):
        done = trial.scan(Plan(name, 60.0), cell, specimen)
        # Electrons sent are the dose times the positions, whatever the number of patterns they go into.
        assert float(done.states[-1].seen.dose.sum()) == pytest.approx(16e4, rel=1e-6), name
        assert done.states[-1].seen.positions.shape[1] == (25 if name in strategies.DENSE else 16), name


def test_search_gives_every_strategy_the_same_budget_and_freezes_the_best() -> None:
    ledger, cell = Ledger(), small()
    names = ["raster", "random", "heuristic", "oracle-density"]
    done = judged(cell, names, ledger)
    rows = [r for r in ledger if r["kind"] == "tuning"]
    first = {n: {(r["defocus"], json.dumps(r["reconstruct"])) for r in rows if r["strategy"] == n} for n in names}
    # Two defoci with the first reconstruction, then the other where it matters: at the winner and in focus.
    assert {n: len(plans) in (3, 4) for n, plans in first.items()} == dict.fromkeys(names, True)
    for name in names:
        means: dict[Plan, float] = {}
        for row in rows:
            for stop, value in row["numbers"].items():
                plan = search.stopped(Plan(row["strategy"], row["defocus"], tuple(sorted(row["reconstruct"].items()))), int(stop))
                means[plan] = means.get(plan, 0.0) + value / 2
        assert means[done.plans[name]] == max(v for p, v in means.items() if p.strategy == name)


@pytest.mark.parametrize("best", [0.0, 60.0])
def test_focused_variants_stay_in_focus(best: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "explore", lambda plan, *_: {str(stop): float(plan.defocus == best) + stop / 100 for stop in search.STOPS})
    done = judged(small(evaluate={"specimens": 1}), ["raster", "raster:focused"])
    assert {name: plan.defocus for name, plan in done.plans.items()} == {"raster": best, "raster:focused": 0.0}
    # Where focus is best, both are the same scan.
    assert (done.numbers["raster"] == done.numbers["raster:focused"]) is (best == 0)


def test_training_score_is_the_score_that_is_reported() -> None:
    """Explored and scored on one specimen, a plan has one number."""
    cell = small()
    specimen = sample.simulated(cell, 3)
    plan = Plan("raster", 60.0, tuple(sorted(search.DESCENTS[0].items())))
    explored = search.explore(plan, cell, specimen)
    scored = trial.score(search.stopped(plan, 10), cell, specimen, "truth")
    # The same descent, looked at on the way or stopped there.
    assert scored["correlation_inside"] == pytest.approx(explored["10"], abs=1e-6)


def test_results_are_kept_and_only_what_is_missing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cell = tmp_path / "results.jsonl", small()
    first = judged(cell, ["raster"], Ledger.open(path))
    whole = path.read_bytes()
    # A crash in the middle of a line, and a further strategy.
    path.write_bytes(whole[: len(whole) - 40])
    measured = []
    monkeypatch.setattr(race, "perform", lambda task, do=race.perform: measured.append(task) or do(task))
    again = judged(cell, ["raster", "random:focused"], Ledger.open(path))
    assert without_times(table.table(first)["ssim"]) == {"raster": table.table(again)["ssim"]["raster"]}
    raster = [t for t in measured if any(p.strategy == "raster" for p in t.plans)]
    assert len(raster) == 1  # the one that was cut off
    measured.clear()
    judged(cell, ["raster", "random:focused"], Ledger.open(path))
    assert measured == []


def test_results_of_other_code_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cell = tmp_path / "results.jsonl", small()
    first = judged(cell, ["raster"], Ledger.open(path), protocol="paper")
    monkeypatch.setattr(provenance, "code", lambda: "0123456789ab")
    with pytest.warns(UserWarning, match=r"3 results in .*results\.jsonl were measured by other code than this and are left alone"):
        again = judged(cell, ["raster"], Ledger.open(path), protocol="paper")
    rows = list(Ledger.open(path))
    assert Counter(r["code"] for r in rows) == {first.origin.code: 3, "0123456789ab": 3}
    assert again.origin == replace(first.origin, code="0123456789ab")


def test_the_code_is_everything_that_measuring_imports() -> None:
    """No module that is left out of the hash is imported where something is measured, directly or not, on the first call or later."""
    root = Path(adaptycho.__file__).parent
    paths = {".".join(p.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in root.rglob("*.py")}
    found, left = set(), [f"adaptycho.compare.{name}" for name in ("search", "strategies", "trial")]
    left += [f"adaptycho.scan.policies.{place.partition(':')[0]}" for place in policies.OWN.values()]  # imported by name
    while left:
        name = left.pop()
        if name in found or name not in paths:
            continue
        found.add(name)
        left.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(paths[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                left += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                left += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    assert {
        "adaptycho.physics.forward",
        "adaptycho.scan.policies.gaussian_process",
        "adaptycho.metrics.image",
    } < found  # the walk goes somewhere
    apart = ["adaptycho." + name.replace("/", ".") for name in provenance.APART]
    assert [name for name in found if any(f"{name}.".startswith(f"{a}.") for a in apart)] == []
    assert all((root / name).exists() or (root / f"{name}.py").exists() or (root / f"{name}.json").exists() for name in provenance.APART)


def test_another_byte_of_code_is_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(
        Path(adaptycho.__file__).parent, tmp_path / "adaptycho", ignore=shutil.ignore_patterns("*.h5", "*.safetensors", "__pycache__")
    )
    monkeypatch.setattr(adaptycho, "__file__", str(tmp_path / "adaptycho" / "__init__.py"))
    usual = provenance.code.__wrapped__()
    assert usual == provenance.code()
    for name, counts in (
        ("physics/forward.py", True),
        ("physics/specimen/lobato.json", True),
        ("app/cli/__init__.py", False),
        ("compare/advice/table.json", False),
    ):
        path = tmp_path / "adaptycho" / name
        kept = path.read_bytes()
        path.write_bytes(kept + b"\n")
        assert (provenance.code.__wrapped__() != usual) is counts, name
        path.write_bytes(kept)


def test_reports_on_specimens_that_designs_were_chosen_on_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "perform", lambda task: pytest.fail("expected the warning first"))
    with pytest.raises(UserWarning, match=r"evaluate\.test: designs were changed after looking at specimens 1100000 to 1200000"):
        judged(small(evaluate={"test": (1_150_000, 1_250_000)}), ["raster"])


@pytest.mark.parametrize("name", ["train", "validation"])
def test_nothing_is_learnt_or_chosen_on_specimens_that_are_for_reports(name: str) -> None:
    assert Settings().evaluate.test == (2_000_000, 2_100_000)
    with pytest.raises(ValueError, match=r"evaluate: expected train and validation to end at 2000000 or before"):
        settings.update(Settings(), {"evaluate": {name: (1_900_000, 2_000_001), "test": (2_000_001, 2_100_000)}}, "test")
    ends = settings.update(Settings(), {"evaluate": {name: (1_900_000, 2_000_000)}}, "test")
    assert getattr(ends.evaluate, name)[1] == ends.evaluate.test[0]


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl: line 2: expected a row of an evaluation in JSON, found 'nonsense'"):
        Ledger.open(path)


def test_a_key_tells_apart_whatever_changes_a_result() -> None:
    cell, plan = small(), Plan("raster", 60.0)
    task = race.Task(cell, 1, (plan,), "truth")
    other = [
        replace(task, number=2),
        replace(task, reference=None),
        replace(task, reference="full"),
        replace(task, settings=small(scan={"dose": 2e4})),
        replace(task, settings=small(evaluate={"dense": 36})),
        replace(task, settings=small(specimen={"options": {"filling": 0.3}})),
        replace(task, settings=small(scan={"microscope": "recorded"})),
    ]
    keys = [t.key(plan) for t in other] + [task.key(Plan("raster")), task.key(Plan("random", 60.0)), task.key(plan)]
    assert len(set(keys)) == len(keys)
    # How many specimens are tried does not change what happens on one, nor does how policies are trained.
    for same in (small(evaluate={"specimens": 2}), small(train={"imitate_steps": 7}), small(network={"floor": 0.3})):
        assert replace(task, settings=same).key(plan) == task.key(plan)


def test_a_key_has_code_libraries_defaults_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, keys = Plan("adaptive"), []

    def add(cell: Settings) -> None:
        keys.append(race.Task(cell, 1, (plan,), "truth").key(plan))

    unit, weights, recording = tmp_path / "unit.xyz", tmp_path / "weights", tmp_path / "recording.h5"
    for path in (unit, weights, recording):
        path.write_bytes(b"1")
    sections = [
        {"specimen": {"structure": str(unit)}},
        {"scan": {"weights": str(weights)}},
        {"scan": {"microscope": "recorded", "file": str(recording)}},
    ]
    for cell in (small(), *(small(**section) for section in sections)):
        add(cell)
    for path in (unit, weights, recording):
        path.write_bytes(b"22")
    for section in sections:
        add(small(**section))
    monkeypatch.setattr(provenance, "code", lambda: "other")
    add(small())
    monkeypatch.setattr(provenance, "libraries", lambda: {"torch": "0"})
    add(small())
    # A default that a later version changes: the same file of settings is another scan then.
    keep = settings.nested
    monkeypatch.setattr(race.tree, "nested", lambda given: {**keep(given), "beam": {"semiangle": 34.0}})
    add(small())
    assert len(set(keys)) == len(keys)


def test_table_has_every_metric_with_intervals() -> None:
    names = ["raster", "random", "halton", "oracle-density"]
    cell = judged(small(), names)
    found = table.table(cell)
    for metric in ("ssim", "ssim_aligned", "correlation", "resolution", "nrmse", "held_out", "dose_peak", "coverage", "seconds"):
        assert set(found[metric]) == set(names)
        for name in names:
            low, high = found[f"{metric}_ci"][name]
            assert low <= found[metric][name] <= high
    assert found["best_conventional"] in ("raster", "random", "halton")
    assert found["gain"][found["best_conventional"]] == [0.0, 0.0, 0.0]
    assert found["win_rate"][found["best_conventional"]][0] == 0.5
    assert found["q_ssim"]["random"] == [0.0, 0.0, 0.0]
    mean = {name: sum(r["ssim"] for r in cell.numbers[name]) / 3 for name in names}
    assert found["q_ssim"]["raster"][0] == pytest.approx(mean["raster"] / mean["random"] - 1, abs=2e-5)  # five decimals
    json.dumps(found, allow_nan=False)
    assert any("oracle-density" in line for line in table.text(found))


def test_paper_protocol_is_the_papers() -> None:
    cell = small("paper", scan={"subsequences": 5, "positions": 20})
    done = judged(cell, ["random", "oracle"], protocol="paper")
    assert done.plans["random"] == Plan("random")
    r = cell.reconstruct
    assert (r.iterations, r.loss, r.step, r.scaling, r.momentum) == (5, "intensity", 525.0, "none", 0.0)
    specimen = sample.simulated(cell, cell.evaluate.test[0])
    by_hand = trial.scan(Plan("random"), cell, specimen)
    from adaptycho import metrics

    expected = float(metrics.ssim(specimen.setup.crop(by_hand.potential), specimen.full_scan)[0])
    assert done.numbers["random"][0]["ssim"] == pytest.approx(expected, rel=1e-4)  # five digits are kept


def test_an_archive_from_before_is_of_the_range_of_then(tmp_path: Path) -> None:
    """Files that were written before the range was kept have what differed from the defaults."""
    path, done = tmp_path / "cells.json", judged(small(), ["random"], protocol="paper")
    archive.write(path, [done])
    written = json.loads(path.read_text())
    assert written["cells"][0].pop("measured")["code"] == provenance.code()
    del written["sha256"]
    written["cells"][0]["settings"] = {"scan": {"positions": 16}, "evaluate": {"specimens": 3}}
    path.write_text(json.dumps(written))
    (read,) = archive.read(path)
    assert (read.settings.evaluate.test, read.settings.evaluate.specimens, read.settings.scan.positions) == (settings.USED, 3, 16)
    assert read.origin is None and table.table(read)["measured"] is None
    assert read.numbers.keys() == done.numbers.keys()


def test_an_archive_gives_the_same_table(tmp_path: Path) -> None:
    done = judged(small(), ["raster", "random"])
    for name in ("cells.json", "cells.json.gz"):
        archive.write(tmp_path / name, [done])
        assert table.table(archive.read(tmp_path / name)[0]) == table.table(done)
        assert archive.read(tmp_path / name)[0].origin == done.origin
    assert archive.read(tmp_path / name)[0].settings == done.settings
    with pytest.raises(ValueError, match=r"none\.json: expected an evaluation .*, found none"):
        archive.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json: format: expected a value, found none"):
        archive.read(tmp_path / "other.json")


def test_a_diverged_scan_is_the_worst_and_does_not_stop_the_others() -> None:
    cell = small("paper", reconstruct={"step": 1e12}, scan={"subsequences": 2})
    found = table.table(judged(cell, ["raster", "heuristic"], protocol="paper"))
    assert found["ssim"]["raster"] is None or found["ssim"]["raster"] < 0.1
    json.dumps(found, allow_nan=False)


def test_unknown_strategies_are_refused_before_any_work() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match=r"strategies: expected some of raster, .*, found 'rasta'"):
        judged(small(), ["raster", "rasta"], ledger)
    assert not list(ledger)


def test_a_policy_is_not_judged_on_what_it_practised_on(tmp_path: Path) -> None:
    """What comes along has practised on the recording that does; on another, or with other weights, it may be used."""
    cell = settings.update(Settings(), {"scan": {"microscope": "recorded"}}, "test")
    with pytest.raises(ValueError, match=r"scan.weights: expected some for 'adaptive': .*, found none"):
        strategies.check("adaptive", cell, tuned=False)
    for changes in ({"file": "another.h5"}, {"weights": "mine.safetensors"}):
        strategies.check("adaptive", settings.update(cell, {"scan": changes}, "test"), tuned=False)
    strategies.check("heuristic", cell, tuned=False)


def test_auto_is_the_best_of_the_others_on_training_specimens() -> None:
    """An oracle is not one of them, and nothing is offered where nothing is tuned or there is nothing to choose from."""
    plans = {
        "adaptive": [Plan("adaptive", 0.0), Plan("adaptive", 60.0)],
        "adaptive:focused": [Plan("adaptive", 0.0)],
        "raster": [Plan("raster", 60.0)],
        "oracle": [Plan("oracle", 0.0)],
    }
    scores = {
        Plan("adaptive", 0.0): {3: 0.5, 5: 0.4},
        Plan("adaptive", 60.0): {3: 0.6, 5: 0.7},
        Plan("raster", 60.0): {3: 0.65, 5: 0.6},
        Plan("oracle", 0.0): {3: 0.9, 5: 0.9},
    }
    names = ["auto", "adaptive", "auto:focused", "raster", "oracle"]
    found = search.chosen(scores, plans, names)
    assert list(found) == names
    assert found["auto"] == found["adaptive"] == search.stopped(Plan("adaptive", 60.0), 5)
    assert found["auto:focused"] == search.stopped(Plan("adaptive", 0.0), 3)
    scores[Plan("raster", 60.0)] = {3: 0.8, 5: 0.7}  # not to adapt is one of them
    assert search.chosen(scores, plans, names)["auto"] == search.stopped(Plan("raster", 60.0), 3)
    cell = small()
    with pytest.raises(ValueError, match="expected one that is itself, since nothing is chosen here, found 'auto'"):
        judged(small("paper"), ["raster", "auto"], protocol="paper")
    with pytest.raises(ValueError, match="expected others that 'auto' can be one of, found oracle, auto"):
        judged(cell, ["oracle", "auto"])
    with pytest.raises(ValueError, match="expected others that 'auto:focused' can be one of, found raster, auto:focused"):
        judged(cell, ["raster", "auto:focused"])
    assert "auto" not in race.everything(race.PROTOCOLS["paper"], cell)
    assert "auto" in race.everything(race.PROTOCOLS["best"], cell)


def test_auto_is_what_is_scanned_with() -> None:
    found = judged(small(evaluate={"specimens": 1, "defoci": (60.0,)}), ["auto", "adaptive", "raster"])
    plan = found.plans["auto"]
    assert plan == found.plans[plan.strategy]
    assert found.numbers["auto"] == found.numbers[plan.strategy]
    described = table.table(found)
    assert described["plans"]["auto"]["strategy"] == plan.strategy
    assert any(line.split()[:2] == ["auto", f"({plan.strategy})"] for line in table.text(described))


def test_plans_race_on_training_specimens() -> None:
    """Each time the specimens double the better half goes on; the last word has the mean over all of them."""
    assert [search.stages(n) for n in (1, 4, 5, 8, 32)] == [[1], [4], [4, 5], [4, 8], [4, 8, 16, 32]]
    plans = [Plan("raster", float(d)) for d in (0, 30, 60)]
    scores = {plan: {3: s, 5: s - 0.1} for plan, s in zip(plans, (0.5, 0.7, 0.6), strict=True)}
    assert search.halved(scores, plans) == [plans[1], plans[2]]
    assert search.allowed(plans, "raster:focused") == [plans[0]]
    ledger = Ledger()
    cell = small(evaluate={"tuning": 9, "specimens": 1})
    found = judged(cell, ["raster", "random"], ledger)
    tuned = [r for r in ledger if r["kind"] == "tuning" and r["strategy"] == "raster"]
    # Two defoci, and another descent at the one that won and in focus: four or three plans on four specimens, then two and one.
    count = Counter(r["specimen"] for r in tuned)
    assert sorted(count.values(), reverse=True) in ([4] * 4 + [2] * 4 + [1], [3] * 4 + [2] * 4 + [1])
    last = next(r for r in tuned if r["specimen"] == 8)
    plan = found.plans["raster"]
    assert (plan.defocus, {k: v for k, v in plan.reconstruct if k != "iterations"}) == (last["defocus"], last["reconstruct"])
    rows = [r["numbers"] for r in tuned if (r["defocus"], r["reconstruct"]) == (last["defocus"], last["reconstruct"])]
    assert len(rows) == 9
    means = {stop: sum(row[stop] for row in rows) / 9 for stop in rows[0]}
    assert str(dict(plan.reconstruct)["iterations"]) == max(means, key=lambda stop: means[stop])


def test_every_strategy_races_by_itself() -> None:
    """A variant that is held in focus, or a choice among all, gives no strategy a longer race than another has."""
    cell = small(evaluate={"tuning": 9, "specimens": 1, "defoci": (0.0, 30.0, 60.0)})
    few, many = Ledger(), Ledger()
    alone = judged(cell, ["raster"], few)
    both = judged(cell, ["raster", "raster:focused", "random", "auto", "auto:focused"], many)
    assert alone.plans["raster"] == both.plans["raster"]
    # Of five plans three and then two go on; of the two in focus one does.
    assert Counter((r["strategy"], r["defocus"]) for r in many if r["specimen"] == 8 and r["kind"] == "tuning") == {
        ("raster", 60.0): 2,
        ("raster", 0.0): 1,
        ("random", 60.0): 2,
    }
    assert both.plans["auto"] in (both.plans["raster"], both.plans["raster:focused"], both.plans["random"])
    assert both.plans["auto:focused"] == both.plans["raster:focused"]


def test_the_same_work_is_done_once() -> None:
    """Two cells that differ in the number of test specimens only share all they have in common."""
    done: list[int] = []

    def count(items: Any, total: int, what: str) -> Any:
        done.append(total)
        return items

    cells = [settings.update(small(), {"evaluate": {"specimens": n, "defoci": (60.0,)}}, "test") for n in (1, 2)]
    race.judge(cells, race.PROTOCOLS["best"], ["raster"], Ledger(), progress=count, workers=1)
    tuning = small().evaluate.tuning
    assert done == [tuning, tuning, 2]


def test_dose_saving_compares_along_positions() -> None:
    """A strategy whose score is the conventional one's at twice the positions saves a factor of two."""
    cells = []
    for positions in (16, 32, 64, 128):
        cell = small(scan={"positions": positions})
        noise = [0.01 * math.sin(17 * b) for b in range(3)]
        level = math.log2(positions)
        rows = {"raster": level, "random": level - 1, "heuristic": level + 1}
        numbers = {n: tuple({"correlation_inside": v + e} for e in noise) for n, v in rows.items()}
        cells.append(race.Cell(cell, race.PROTOCOLS["best"], {n: Plan(n) for n in rows}, numbers))
    found = {r["positions"]: r for r in table.dose_savings(cells)}
    for positions in (16, 32, 64):
        assert found[positions]["dose_saving"][0] == pytest.approx(2, rel=1e-3)
    assert found[128]["bounded"] == "above"


def test_a_cautious_gain_makes_nothing_of_scans_that_are_alike() -> None:
    """Of two that take turns in being ahead, the one that is best on the others is the worse one on every specimen."""
    ahead = [0.1, -0.1] * 3
    rows = {"raster": [1 + a for a in ahead], "hexagonal": [1 - a for a in ahead], "heuristic": [1.0] * 6}
    numbers = {n: tuple({"correlation_inside": v} for v in values) for n, values in rows.items()}
    cell = race.Cell(small(), race.PROTOCOLS["best"], {n: Plan(n) for n in rows}, numbers)
    assert table.cautious_gain(cell, ["heuristic"])[0] == pytest.approx(0.0, abs=1e-6)
    assert table.blind_gain(cell, ["heuristic"])[0] == pytest.approx(1 / 0.9 - 1, abs=1e-4)
    only = race.Cell(small(), race.PROTOCOLS["best"], {"heuristic": Plan("heuristic")}, {"heuristic": numbers["heuristic"]})
    assert table.cautious_gain(only, ["heuristic"]) == [None, None, None]


def test_recorded_windows_are_split_in_halves() -> None:
    cell = settings.update(Settings(), {"scan": {"microscope": "recorded", "positions": 50}, "reconstruct": settings.BEST}, "test")
    cell = settings.update(cell, {"reconstruct": {"iterations": 3}}, "test")
    a, b = sample.recorded(cell, 0), sample.recorded(cell, 1)
    assert a.microscope.measurement.positions.shape[1] == b.microscope.measurement.positions.shape[1] == 800
    mine = {tuple(p) for p in a.microscope.measurement.positions[0].tolist()}
    assert not mine & {tuple(p) for p in b.microscope.measurement.positions[0].tolist()}
    assert torch.equal(b.held_out.patterns, a.microscope.measurement.patterns)
    # Half of the window is inside, up to pixels at exactly the median.
    assert float(a.inside.float().mean()) == pytest.approx(0.5, abs=0.01)
    found = trial.score(Plan("raster"), cell, a, "truth")
    assert 0.2 < found["correlation_inside"] < 1
    with pytest.raises(ValueError, match="expected numbers 0 to 7"):
        sample.recorded(cell, 8)


@pytest.mark.slow
def test_two_dask_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    """The same table, and the same simulated recordings."""
    distributed = pytest.importorskip("distributed")
    names = ["raster", "random", "heuristic"]
    chosen = small("paper", specimen={"count": 2}, scan={"policy": "random", "positions": 9})
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        spread = judged(small(), names, scheduler=cluster.scheduler_address)
        theirs = tasks.simulate(tmp_path / "theirs.h5", chosen, silent, scheduler=cluster.scheduler_address)
    alone = judged(small(), names)
    assert without_times(table.table(spread)) == without_times(table.table(alone))
    ours = tasks.simulate(tmp_path / "ours.h5", chosen, silent, workers=1)
    assert len(theirs) == len(ours) == 2
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(formats.read(a).measurement.patterns, formats.read(b).measurement.patterns)


def test_command_gives_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["evaluate", "--protocol", "best", "--family", "island", "--positions", "16", "--dose", "300", "1e4"]
    words += ["--strategies", "raster", "oracle-density", "--specimens", "2", "--workers", "1", "--out", str(tmp_path / "e")]
    words += ["--geometry.field", "[8.0, 8.0]", "--geometry.object", "auto", "--evaluate.tuning", "1", "--evaluate.defoci", "[0.0, 60.0]"]
    words += ["--evaluate.test", "[1200000, 1300000]"]
    assert cli.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert [c["dose"] for c in found["cells"]] == [300.0, 1e4]
    assert [c["specimens"] for c in found["cells"]] == [2, 2]
    assert set(found["cells"][0]["ssim"]) == {"raster", "oracle-density"}
    read = archive.read(tmp_path / "e" / "cells.json")
    assert [table.table(c)["ssim"] for c in read] == [c["ssim"] for c in found["cells"]]
    assert cli.main(words) == 0
    assert "island, 16 positions, 300 electrons each" in capsys.readouterr().out


def test_the_papers_protocol_has_25_specimens_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(tasks, "evaluate", lambda out, cells, *_, **__: seen.extend(cells) or {"cells": [{}], "dose_savings": []})
    monkeypatch.setattr(tasks, "evaluation_lines", lambda found: [])
    for words in (["--protocol", "paper"], ["--protocol", "best"], ["--protocol", "paper", "--specimens", "3"]):
        assert cli.main(["evaluate", *words]) == 0
    assert [(c.evaluate.specimens, c.scan.subsequences) for c in seen] == [(25, 5), (12, 4), (3, 5)]
    assert [c.reconstruct.iterations for c in seen] == [5, 20, 5]


def test_cells_are_every_combination() -> None:
    found = tasks.cells(Settings(), ["island", "crystal"], [64, 144], [300.0])
    assert [(c.specimen.family, c.scan.positions, c.scan.dose) for c in found] == [
        ("island", 64, 300.0),
        ("island", 144, 300.0),
        ("crystal", 64, 300.0),
        ("crystal", 144, 300.0),
    ]
    assert tasks.cells(Settings(), [], [], []) == [Settings()]


@pytest.mark.parametrize("preset", ["light", "paper"])
def test_columns_are_where_the_truth_has_them(preset: str) -> None:
    """Rows are y, columns are x, and the corner is that of the cropped field: else errors of columns and oracles mean nothing."""
    cell = settings.update(settings.preset(preset), {"specimen": {"family": "crystal"}, "geometry": {"field": (20.0, 16.0)}}, "test")
    specimen = sample.simulated(cell, 5)
    found = column_error(specimen.truth[0], specimen.sites.present, specimen.setup.object.pixel)
    # A tenth of the finer pixel: what is left is the paraboloid through a spot that is none.
    assert found.error < 0.0154
    assert len(specimen.sites.present) > 30


def test_what_oracles_know_is_in_the_beams_coordinates() -> None:
    """The beam sent to a column hits it: the fractions that an oracle is given, put through the setup, are the atoms' object pixels."""
    cell = small(specimen={"family": "crystal", "options": {}})
    specimen = sample.simulated(cell, 5)
    setup = specimen.setup
    columns = strategies.scanner("oracle", cell, specimen, 0.0).columns[0]
    atoms = build.atoms(settings.update(cell, {"specimen": {"first": 5}}, "test"), setup, 5)
    true = torch.from_numpy(atoms.positions[:, 1::-1].copy()) / setup.object.pixel + torch.tensor(setup.object.shape) // 2
    nearest = torch.cdist(setup.to_pixels(columns).double(), true).min(1).values
    # Single precision, and columns whose atoms lie 1e-3 Å apart.
    assert float(nearest.max()) * setup.object.pixel < 1e-2


def test_every_specimen_is_scanned_with_randomness_of_its_own() -> None:
    cell = small("paper")
    scans = [trial.scan(Plan("random"), cell, sample.simulated(cell, n)).states[-1].seen.positions for n in (5, 6)]
    assert not torch.equal(*scans)
    other = small("paper", scan={"seed": 1})
    assert not torch.equal(scans[0], trial.scan(Plan("random"), other, sample.simulated(other, 5)).states[-1].seen.positions)


def test_recorded_scans_are_scored_against_the_half_that_they_do_not_see() -> None:
    cell = settings.update(Settings(), {"scan": {"microscope": "recorded"}, "reconstruct": {**settings.BEST, "iterations": 2}}, "test")
    specimen = sample.recorded(cell, 0)
    descent = build.reconstructor(cell, specimen.setup)
    assert torch.equal(specimen.full_scan, specimen.setup.crop(descent(specimen.held_out).phase))
    assert not torch.equal(specimen.full_scan, specimen.setup.crop(descent(specimen.microscope.measurement).phase))


def test_held_out_patterns_are_predicted_better_from_the_truth() -> None:
    cell = small()
    specimen = sample.simulated(cell, 5)
    whole = specimen.microscope.potential
    # 64 patterns of 2e5 electrons: counting noise is what is left, an amplitude variance of 1/4 in each of 1024 pixels.
    assert trial._held_out(whole, specimen) < 0.5 < trial._held_out(0.3 * whole, specimen) < 1
    assert trial._held_out(0 * whole, specimen) == 1


def numbers_of(cell: Settings, rows: dict[str, list[dict[str, float]]]) -> race.Cell:
    return race.Cell(cell, race.PROTOCOLS["best"], {n: Plan(n) for n in rows}, {n: tuple(v) for n, v in rows.items()})


def test_a_metric_that_only_some_specimens_have_is_kept_for_those(tmp_path: Path) -> None:
    """Vacancies to find are not in every specimen; and what is not there is not a reconstruction that diverged."""
    row = {"correlation_inside": 0.5, "ssim": 0.5}
    found = numbers_of(small(), {"raster": [row, row | {"vacancy_f1": 0.2}, row | {"vacancy_f1": 0.8}]})
    archive.write(tmp_path / "cells.json", [found])
    read = archive.read(tmp_path / "cells.json")[0]
    assert read.numbers["raster"][1]["vacancy_f1"] == 0.2
    assert table.table(read)["vacancy_f1"]["raster"] == table.table(found)["vacancy_f1"]["raster"] == pytest.approx(0.5)


def test_tables_of_scans_that_all_diverged_can_be_read() -> None:
    bad = [{"correlation_inside": math.nan, "ssim": math.nan}] * 4
    cells = [numbers_of(small(scan={"positions": p}), {"raster": bad, "heuristic": bad}) for p in (16, 32)]
    found = {"cells": [table.table(c) for c in cells], "dose_savings": table.dose_savings(cells)}
    assert any("heuristic" in line for line in tasks.evaluation_lines(found))


def test_diverging_does_not_raise_the_mean() -> None:
    """Of twelve specimens eleven diverged: the strategy is not as good as its one success."""
    lost = {"correlation_inside": math.nan, "ssim": math.nan}
    rows = {"raster": [lost] * 11 + [{"correlation_inside": 0.8, "ssim": 0.8}], "random": [{"correlation_inside": 0.5, "ssim": 0.5}] * 12}
    found = table.table(numbers_of(small(), rows))
    assert found["ssim"]["raster"] < 0.55  # (11 x 0.5, the worst of all, + 0.8) / 12
    assert found["gain"]["raster"][0] == pytest.approx(found["correlation_inside"]["raster"] / 0.5 - 1, abs=1e-4)


def test_one_specimen_proves_nothing() -> None:
    row = {"correlation_inside": 0.5, "ssim": 0.5}
    low, high = table.table(numbers_of(small(), {"raster": [row], "random": [row]}))["ssim_ci"]["raster"]
    assert low is None and high is None


def test_repeated_values_are_one_cell() -> None:
    assert len(tasks.cells(Settings(), ["island", "island"], [64, 64], [300.0, 300.0])) == 1


def test_a_file_that_is_not_a_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"results\.jsonl"):
        Ledger.open(path)
    assert path.read_text() == '{"mine": 1}'


def test_a_nominal_defocus_is_everyones() -> None:
    cell = small("paper", scan={"defocus": 80.0})
    specimen = sample.simulated(cell, 1)
    assert {float(trial.scan(Plan(n), cell, specimen).states[-1].seen.defocus.max()) for n in ("raster", "heuristic", "greedy")} == {80.0}

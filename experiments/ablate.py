"""What each part of a learned scan is worth: the same 25 test specimens scanned without it. One JSON line for each part.

    python experiments/ablate.py --weights A/reinforce.safetensors ... --before A/imitate.safetensors ... --out FOLDER \
        [--extra voronoi=V1/reinforce.safetensors V2/... --extra shared=S1/... ...]

The paper's protocol on MoS2: 250 positions, 5 sub-sequences. Every line has the mean SSIM, the relative gain over the random scan, and
`difference` from the full one (`--weights`) as a paired mean over specimens with its interval.

- `imitation`, `heuristic`, `lattice`: before reinforcement; and two scans that adapt without having learnt.
- `subsequences`: the same weights with 2, 3 and 4 sub-sequences, though they were trained with 5.
- `even`: what a policy that displaces nothing would do, the survey and a lattice.
- `pattern`: after the same survey 200 positions that are the same for all specimens, learned by the reward of the policies in as many
  episodes.
- `exchanged`: positions that the policy chose for another test specimen. They are as far from even as its own would be, and have nothing to
  do with what is there. This and the next need field policies.
- `forgetful`: the policy sees the patterns of the latest sub-sequence only. It was not trained again for that.
- `--extra NAME=FILE FILE ...`: other weights, such as those trained with the shared or the Voronoi credit.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from learned import WORKERS, column, listed, measure, ours, progress, seeded
from torch import Tensor, nn

from adaptycho import metrics
from adaptycho import settings as tree
from adaptycho.compare import provenance, race, table
from adaptycho.compare.ledger import Ledger, Row, key
from adaptycho.compare.trial import seed
from adaptycho.compare.work import conditions
from adaptycho.learn import pool
from adaptycho.learn.learner import Learner, adam, constant, learn
from adaptycho.learn.reinforce import reinforce
from adaptycho.learn.share import share
from adaptycho.metrics import statistics
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.samples import sample
from adaptycho.samples.sample import Sample
from adaptycho.scan.episode import State, advance, run, scattered, split_evenly
from adaptycho.scan.networks import library, weights
from adaptycho.scan.networks.field import Field, outlook
from adaptycho.scan.policies.learned import Learned, even
from adaptycho.settings import Settings, build
from adaptycho.support.parallel import cores, spread
from adaptycho.types import Action, Measurement, Memory, Observation, Scanner

PAPER = race.PROTOCOLS["paper"]
RATE = 1e-3  # of learning a pattern; 3e-3 was no better in 60 steps on 24 training specimens, 1e-2 worse
Scan = Callable[[Settings, Sample, Path], Tensor]  # to the phase inside the field


class Pattern(nn.Module):
    """The network of a policy that looks at nothing: positions after the survey, which are learned as they are."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.positions = nn.Parameter(start.clone())

    def forward(self, seen: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All of them."""
        return self.positions.expand(len(seen.potential), -1, -1), None


@dataclass(frozen=True, eq=False)
class Still:
    """A scanner that takes given positions in their order, (P, 2) in fractions of the field, whatever it sees."""

    positions: Tensor

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """The next of them."""
        taken = seen.positions.shape[1]
        return Action(self.positions[taken : taken + seen.count].expand(len(seen.potential), -1, -1)), None


@dataclass(frozen=True, eq=False)
class Forgetful:
    """Another scanner, shown what follows from the latest sub-sequence only.

    Attributes:
        scanner: which decides.
        latest: what was measured in it; None before the first.
        reconstructor: that its potential is made with.
    """

    scanner: Scanner
    latest: Measurement | None
    reconstructor: Reconstructor

    def __call__(self, seen: Observation, memory: Memory, *, generator: torch.Generator) -> tuple[Action, Memory]:
        """What the scanner does at what it is shown."""
        return self.scanner(seen if self.latest is None else self.forget(seen, self.latest), memory, generator=generator)

    def forget(self, seen: Observation, latest: Measurement) -> Observation:
        """The observation without the earlier patterns, their positions and their dose."""
        setup = self.reconstructor.setup
        potential = setup.crop(self.reconstructor(latest).phase)
        return replace(seen, potential=potential, positions=latest.positions, dose=latest.dose, scattered=scattered(latest, setup))


def forgetful(settings: Settings, specimen: Sample, path: Path) -> Tensor:
    """A scan by the policy with its history removed."""
    policy, descent = field_policy(path), build.reconstructor(settings, specimen.setup)
    lengths = split_evenly(settings.scan.positions, settings.scan.subsequences)
    state: State | None = None
    for number in range(len(lengths)):
        scanner = Forgetful(policy, None if state is None else state.latest, descent)
        state = advance(state, specimen.microscope, scanner, descent, lengths, seed=seed(settings, specimen), number=number)
    assert state is not None
    return state.potential


def exchanged(settings: Settings, specimen: Sample, path: Path) -> Tensor:
    """A scan at the positions that the policy chose for the next test specimen, the first for the last."""
    first, count = settings.evaluate.test[0], settings.evaluate.specimens
    other = sample.simulated(settings, first + (specimen.number + 1 - first) % count)
    lengths = split_evenly(settings.scan.positions, settings.scan.subsequences)
    descent = build.reconstructor(settings, specimen.setup)
    *_, there = run(other.microscope, field_policy(path), descent, lengths, seed=seed(settings, other))
    *_, here = run(specimen.microscope, Still(there.seen.positions[0]), descent, lengths, seed=seed(settings, specimen))
    return here.potential


def pattern(settings: Settings, specimen: Sample, path: Path) -> Tensor:
    """A scan at the fixed positions of a file."""
    fixed = Still(torch.tensor(json.loads(path.read_text())))
    descent = build.reconstructor(settings, specimen.setup)
    *_, last = run(specimen.microscope, fixed, descent, [len(fixed.positions)], seed=seed(settings, specimen))
    return last.potential


SCANS: dict[str, Scan] = {"pattern": pattern, "exchanged": exchanged, "forgetful": forgetful}


def field_policy(path: Path) -> Scanner:
    """The scanner of weights.

    Raises:
        ValueError: they are not those of a field policy.
    """
    network = library.load(path)
    if not isinstance(network, Field):
        raise ValueError(f"{path}: expected the weights of a field policy, found a {type(network).__name__.lower()} network")
    return library.scanner(network)


def learn_pattern(settings: Settings, number: int, *, steps: int | None = None, rate: float = RATE) -> tuple[Tensor, list[float]]:
    """A pattern by REINFORCE from where an even scan would have gone: its positions (P, 2), and the SSIM at each step.

    Args:
        settings: of the policies' training, which rewards against the full scan.
        number: seed of the exploration and of which specimens are learnt from.
        steps: of learning; as many as the policies' if None.
        rate: of learning.
    """
    work = tree.update(settings, {"train": {"seed": number}}, "pattern")
    t, p = work.train, work.practice
    start, first = unadapted(work)
    pupil = Pattern(start[first:])
    begin = work.evaluate.train[0] + 1000 + p.pool * number
    specimens = pool.simulated(work, range(begin, begin + p.scored))

    def loss(step: int, part: int) -> tuple[Tensor, Mapping[str, float]]:
        now = share(work, step, part, t.reinforce_batch // t.shares, specimens, pairs=t.baseline == "pair", stage=2)
        # Nothing is decided between the later sub-sequences, so they are taken as one.
        now, policy = replace(now, lengths=(first, len(start) - first)), Learned(pupil, t.sigma, work.network.survey)
        return reinforce(now, policy, t.credit, baseline=t.baseline, gamma=t.gamma, width=t.width, outlook=start)

    learner = Learner(pupil, adam(pupil, rate), parts=t.shares)
    found = [step["ssim"] for step in learn(learner, loss, t.reinforce_steps if steps is None else steps, constant(rate))]
    return torch.cat([start[:first], pupil.positions.detach().clamp(0, 1)]), found


def unadapted(settings: Settings) -> tuple[Tensor, int]:
    """Positions (P, 2) of a field policy's scan if there is nothing to adapt to, and how many of them are the survey."""
    total, field, survey = settings.practice.positions[0], settings.geometry.field, settings.network.survey
    first = split_evenly(total, settings.scan.subsequences)[0]
    return outlook(even(total, field, survey)[:first].float(), total, field, survey), first


@dataclass(frozen=True)
class Task:
    """A scan that the judge does not know, of one specimen."""

    what: str
    settings: Settings
    number: int
    path: Path

    @property
    def key(self) -> str:
        """Of its row: everything that the result depends on."""
        given = provenance.digest([Path(__file__), self.path])
        # Positions come from the next specimen, of the last from the first: how many there are counts.
        return key(conditions(self.settings), self.what, self.settings.evaluate.specimens, self.number, given)


def perform(task: Task) -> Row:
    """Scans and scores; runs in another process."""
    specimen = sample.simulated(task.settings, task.number)
    score = float(metrics.ssim(SCANS[task.what](task.settings, specimen, task.path), specimen.full_scan)[0])
    return {"key": task.key, "what": task.what, "specimen": task.number, "ssim": score}


def scan_all(what: str, settings: Settings, paths: Sequence[Path], ledger: Ledger) -> Tensor:
    """SSIM of every specimen, the mean over files: of weights or of patterns."""
    first = settings.evaluate.test[0]
    tasks = [[Task(what, settings, n, p) for n in range(first, first + settings.evaluate.specimens)] for p in paths]
    left = [t for row in tasks for t in row if t.key not in ledger]
    for _, row in progress(spread(perform, left, workers=WORKERS or cores()), len(left), what):
        ledger.add([row])
    return torch.tensor([[ledger[t.key]["ssim"] for t in row] for row in tasks], dtype=torch.float64)


def ablate(given: argparse.Namespace) -> None:
    out: Path = given.out
    cell = tree.update(tree.preset("light"), {"scan": {"positions": 250}, "evaluate": {"specimens": given.specimens}}, "cell")
    done = measure([cell], PAPER, ["random", "heuristic", "lattice"], given.weights, out)[0]
    full, random = ours(done, "ssim", "adaptive"), column(done, "ssim", "random")

    def say(what: str, scores: Tensor) -> None:
        """One line; scores (files, specimens)."""
        mine = scores.mean(0)
        line = {
            "comparison": "ablate",
            "what": what,
            "specimens": len(mine),
            "ssim": listed(statistics.interval(mine, generator=seeded())),
            "by_policy": [round(float(v), 4) for v in scores.mean(1)],
            "over_random": listed(statistics.relative(mine, random, generator=seeded())),
            "difference": listed(statistics.paired(mine, full, generator=seeded())),
            **table.source(done),
        }
        print(json.dumps(line), flush=True)

    def files(what: str, paths: Sequence[Path], subsequences: int = 5) -> Tensor:
        rules = replace(PAPER, changes={**PAPER.changes, "scan": {"subsequences": subsequences}})
        found = measure([cell], rules, [], paths, out)[0]
        return torch.stack([column(found, "ssim", n) for n in found.numbers])

    say("full", torch.stack([column(done, "ssim", n) for n in done.numbers if n.startswith("adaptive ")]))
    for name in ("random", "heuristic", "lattice"):
        say(name, column(done, "ssim", name)[None])
    if given.before:
        say("imitation", files("imitation", given.before))
    for subsequences in (2, 3, 4):
        what = f"{subsequences} subsequences"
        say(what, files(what, given.weights, subsequences))
    for name, paths in given.extra:
        say(name, files(name, paths))
    settings, ledger = tree.update(cell, dict(PAPER.changes), "paper"), Ledger.open(out / "scans.jsonl")
    for what in ("exchanged", "forgetful"):
        say(what, scan_all(what, settings, given.weights, ledger))
    trained = tree.update(tree.preset("light"), weights.load(given.weights[0]).card["settings"], str(given.weights[0]))
    say("even", scan_all("pattern", settings, [kept(out / "even.json", unadapted(trained)[0])], ledger))
    learned = [out / f"pattern-{number}.json" for number in range(1, len(given.weights) + 1)]
    for number, path in enumerate(learned, 1):
        if not path.exists():
            found, scores = learn_pattern(trained, number)
            path.with_suffix(".log.json").write_text(json.dumps([round(s, 4) for s in scores]))
            kept(path, found)
    say("pattern", scan_all("pattern", settings, learned, ledger))


def kept(path: Path, positions: Tensor) -> Path:
    """A file of positions."""
    path.write_text(json.dumps(positions.tolist()))
    return path


def named(words: Sequence[str]) -> tuple[str, list[Path]]:
    """`NAME=FILE FILE ...` as name and files."""
    name, found, first = words[0].partition("=")
    if not found:
        raise ValueError(f"extra: expected NAME=FILE ..., found {words[0]!r}")
    return name, [Path(p).resolve() for p in (first, *words[1:])]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--weights", type=lambda p: Path(p).resolve(), nargs="+", required=True)
    asked.add_argument("--before", type=lambda p: Path(p).resolve(), nargs="+", help="the weights that reinforcement began from")
    asked.add_argument("--extra", nargs="+", action="append", default=[], help="NAME=FILE FILE ...")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--specimens", type=int, default=25)
    given = asked.parse_args()
    try:
        given.extra = [named(words) for words in given.extra]
    except ValueError as error:
        asked.error(str(error))
    ablate(given)


if __name__ == "__main__":
    main()

"""What browsers that watch a scan cost it, and how soon they show a sub-sequence: one JSON line.

`python benchmarks/monitor.py [--browsers 5] [--pairs 5]`. Scans with nobody watching and scans with a monitor and browsers, in turn. The
scan has a core of its own; the browsers are threads of this process and ask for all that the page asks for.

- `slower`: percent by which a watched scan takes longer, median and quartiles over the pairs.
- `drawn`: seconds from a sub-sequence's reconstruction being in the folder until every browser had its pictures.
- `monitor_ms`: processor time of the monitor for each sub-sequence.
- `shared`: the worst case, in which the monitor has to share the scan's core: its processor time in percent of the scan's, and `drawn`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adaptycho.app import bench

SUBSEQUENCES = 20
SCAN = [
    "--preset",
    "paper",
    "--protocol",
    "best",
    "--positions",
    str(50 * SUBSEQUENCES),
    "--subsequences",
    str(SUBSEQUENCES),
    "--threads",
    "1",
]
SETTINGS = ["--reconstruct.reference_side", "20", "--reconstruct.iterations"]
COMMAND = [sys.executable, "-m", "adaptycho.app.cli"]


@dataclass(frozen=True)
class Seen:
    """One scan, from its second sub-sequence to its last.

    Attributes:
        seconds: that it took.
        worked: processor time of the scan since the monitor was there, or the second sub-sequence.
        watched: processor time of the monitor since then.
        since: sub-sequences there were then.
        late: seconds until every browser had drawn each sub-sequence.
    """

    seconds: float
    worked: float
    watched: float
    since: int
    late: list[float]

    def drawn(self) -> dict[str, float]:
        """Median and largest of what was late, and how many sub-sequences every browser drew."""
        return {"median": round(statistics.median(self.late), 3), "max": round(max(self.late), 3), "of": len(self.late)}


def processor_time(process: subprocess.Popen[str] | None) -> float:
    """Seconds that a process has used so far."""
    if process is None:
        return 0.0
    return sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15])) / os.sysconf("SC_CLK_TCK")


def browse(address: str, drawn: dict[int, list[float]]) -> None:
    """What the page does: follows the events and asks for the specimen and two pictures whenever there is news."""

    def get(path: str) -> None:
        urllib.request.urlopen(address + path, timeout=60).read()

    with suppress(OSError), urllib.request.urlopen(f"{address}api/events", timeout=60) as stream:
        shown = 0
        for line in stream:
            if line.startswith(b"data: "):
                done = json.loads(line[6:])["done"]
                get("api/specimen/0")
                if done:
                    for kind in ("phase", "dose"):
                        get(f"api/picture/{kind}/0/{done - 1}.png")
                if done != shown:
                    shown = done
                    drawn.setdefault(done, []).append(time.time())


def start(cores: set[int], *arguments: str, heard: bool = False) -> "subprocess.Popen[str]":
    """The program on some cores, listened to or not."""
    command = ["taskset", "-c", ",".join(map(str, sorted(cores))), *COMMAND, *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE if heard else subprocess.DEVNULL)


def scan(folder: Path, iterations: int, browsers: int, *, shared: bool = False) -> Seen:
    """One scan, with a monitor unless there are no browsers, which shares the scan's core or has the others."""
    cores = os.sched_getaffinity(0)
    first = {min(cores)}
    running, monitor, drawn = start(first, "scan", str(folder), *SCAN, *SETTINGS, str(iterations)), None, dict[int, list[float]]()

    def wait(path: Path) -> None:
        while not path.exists() and running.poll() is None:
            time.sleep(0.01)

    states = [folder / "states" / f"{number:03d}.h5" for number in range(SUBSEQUENCES)]
    try:
        if browsers:
            wait(folder / "settings.toml")
            where = first if shared else cores - first or cores
            monitor = start(where, "monitor", str(folder), "--port", "0", "--limit", "3e5", heard=True)
            assert monitor.stdout is not None
            address = monitor.stdout.readline().split()[0]
            for _ in range(browsers):
                threading.Thread(target=browse, args=(address, drawn), daemon=True).start()
        wait(states[1])
        before, since = (processor_time(running), processor_time(monitor)), sum(state.exists() for state in states)
        wait(states[-1])
        worked, watched = processor_time(running) - before[0], processor_time(monitor) - before[1]
        if running.wait():
            raise SystemExit(f"benchmarks/monitor.py: expected a scan that ends, found exit code {running.returncode}")
        time.sleep(2.0 if browsers else 0.0)
        late = [max(times) - states[done - 1].stat().st_mtime for done, times in drawn.items() if len(times) == browsers]
        return Seen(states[-1].stat().st_mtime - states[1].stat().st_mtime, worked, watched, since, late)
    finally:
        for process in (monitor, running):
            if process is not None:
                process.kill()
                process.wait()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=40)
    asked = parser.parse_args()
    if asked.pairs < 2 or asked.browsers < 1 or asked.iterations < 1:
        parser.error("expected at least two pairs, one browser and one iteration")
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for number in range(asked.pairs):
            crowds = (0, asked.browsers) if number % 2 else (asked.browsers, 0)
            found = {crowd: scan(Path(folder) / f"{number}-{crowd}", asked.iterations, crowd) for crowd in crowds}
            pairs.append((found[0], found[asked.browsers]))
        alone = scan(Path(folder) / "shared", asked.iterations, asked.browsers, shared=True)
    slower = sorted(100 * (watched.seconds / free.seconds - 1) for free, watched in pairs)
    late = [seconds for _, watched in pairs for seconds in watched.late]
    told = {
        "browsers": asked.browsers,
        "iterations": asked.iterations,
        "slower": {
            "median": round(statistics.median(slower), 2),
            "quartiles": [round(q, 2) for q in statistics.quantiles(slower, n=4)[::2]],
        },
        "drawn": Seen(0, 0, 0, 0, late).drawn(),
        "monitor_ms": round(1000 * statistics.median(seen.watched / (SUBSEQUENCES - seen.since) for _, seen in pairs), 1),
        "shared": {"share": round(100 * alone.watched / alone.worked, 2), "drawn": alone.drawn()},
    }
    print(json.dumps(told | bench.machine()))


if __name__ == "__main__":
    main()

"""Other machines, as far as this one can pretend to be them: other paths through the numerical libraries, and other numbers of threads.

    python tests/machines.py                                              # make test on each of them, and a table
    python tests/machines.py --only mkl-avx2 -- .venv/bin/python -m pytest tests/test_results.py

MKL chooses its Fourier transforms by the processor, PyTorch and numba their vector instructions; each can be told otherwise by a variable.
On processors that are not Intel's MKL takes a path of its own whatever they can do, and does not listen to MKL_ENABLE_INSTRUCTIONS; where
there is a C compiler the machines that end in `-as-intel` answer its question with yes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
INTEL = "as-intel"
MACHINES: dict[str, Mapping[str, str]] = {
    "default": {},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
    "mkl-avx2": {"MKL_CBWR": "AVX2"},
    "mkl-sse4": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "torch-plain": {"ATEN_CPU_CAPABILITY": "default"},
    "numba-generic": {"NUMBA_CPU_NAME": "generic"},
    "one-thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "two-threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    f"mkl-full-{INTEL}": {},
    f"mkl-sse4-{INTEL}": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
ANSWER = "int mkl_serv_intel_cpu(void) { return 1; }\nint mkl_serv_intel_cpu_true(void) { return 1; }\n"


def environment(name: str, folder: Path) -> dict[str, str] | None:
    """Variables of a machine; None if this one cannot pretend to be it.

    Args:
        name: of the machine.
        folder: for the small library that answers MKL's question, if one is needed.
    """
    found = dict(MACHINES[name])
    if name.endswith(INTEL):
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or platform.system() != "Linux" or platform.machine() != "x86_64":
            return None
        library = folder / "intel.so"
        if not library.exists():
            subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=ANSWER, text=True, check=True)
        found["LD_PRELOAD"] = str(library)
    return found


def run(name: str, command: Sequence[str], folder: Path, *, quiet: bool = False) -> tuple[int, str] | None:
    """Exit code and output of a command on a machine, the output also shown as it comes; None if this machine cannot pretend to be it."""
    wanted = environment(name, folder)
    if wanted is None:
        return None
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | wanted, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if not quiet:
                print(line, end="", flush=True)
    return process.returncode, "".join(lines)


def main() -> int:
    """Runs a command on each machine; 1 if it failed on one."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", choices=[*MACHINES], default=[*MACHINES])
    asked.add_argument("command", nargs="*", default=["make", "test"])
    given = asked.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            print(f"== {name}: {' '.join(f'{k}={v}' for k, v in MACHINES[name].items()) or 'as it is'}", flush=True)
            started = time.perf_counter()
            found = run(name, given.command, Path(folder))
            ending = "not possible here" if found is None else "passed" if found[0] == 0 else f"FAILED ({found[0]})"
            last = next((line.strip() for line in reversed((found or (0, ""))[1].splitlines()) if line.strip()), "")
            rows.append((name, ending, f"{time.perf_counter() - started:.0f} s", last))
    print("\n".join(["", *("  ".join(word.ljust(width) for word, width in zip(row, (20, 18, 7, 0), strict=True)) for row in rows)]))
    return int(any("FAILED" in ending for _, ending, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main())

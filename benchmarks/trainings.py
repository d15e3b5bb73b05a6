"""Memory and time of trainings that are started at once: each is a `tidemill run` of its own, two of which train at a time.

    python -m benchmarks.trainings [COUNT] [ENGINE] [PATH]     12 transformers on the built-in sample, or on a file or folder

The processes work in one home, which is removed afterwards. Memory is the proportional share (PSS) of every process of the
runs, without the two servers, so that what they share counts once; it is read from /proc, five times a second.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.homes import new_homes

EXPERIMENT = """
name: training-{seed}
dataset: {{source: "{source}"}}
features: {{sets: [alpha30, classic]}}
label: {{horizon: 5}}
engines: [{{name: {engine}}}]
seed: {seed}
"""
PAUSE = 0.2


def command(folder: Path, seed: int, engine: str, source: str) -> list[str]:
    file = folder / f"{engine}-{seed}.yaml"
    file.write_text(EXPERIMENT.format(seed=seed, engine=engine, source=source))
    return [str(Path(sys.executable).with_name("tidemill")), "run", "--json", "--experiment", str(file)]


def descendants(root: int) -> list[int]:
    """Process ids below `root`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended
    found, wave = [], {root}
    while wave := {pid for pid, parent in parents.items() if parent in wave}:
        found += wave
    return found


def shares(pids: list[int]) -> list[int]:
    """Bytes of each process, what is shared divided among those that share it."""
    taken = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it ended
        taken += [int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")]
    return taken


def main(count: int, engine: str, source: str) -> None:
    with new_homes() as (home,):
        folder = home.parent
        environment = {**os.environ, "TIDEMILL_HOME": str(home), "TIDEMILL_KEEPER_LINGER": "60"}
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        subprocess.run(command(folder, 0, "momentum", source), check=True, **quiet)
        begin = time.perf_counter()
        running = [subprocess.Popen(command(folder, 1 + seed, engine, source), **quiet) for seed in range(count)]
        peak = largest = 0
        while any(process.poll() is None for process in running):
            taken = shares(descendants(os.getpid()))
            peak, largest = max(peak, sum(taken)), max(largest, *taken, 0)
            time.sleep(PAUSE)
        seconds = time.perf_counter() - begin
        for process in running:
            _, error = process.communicate()
            if process.returncode:
                sys.exit(error)
    print(f"{count} runs that train {engine} on {source}: {seconds:.0f} s")
    print(f"peak of all of them together {peak / 2**30:.2f} GiB, largest process {largest / 2**30:.2f} GiB")


if __name__ == "__main__":
    given = sys.argv[1:]
    path = f"file:{given[2]}" if len(given) > 2 else "sample"
    main(int(given[0]) if given else 12, given[1] if len(given) > 1 else "transformer", path)

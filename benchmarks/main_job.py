"""Where the time of `tidemill run` goes, and what a run costs when little or nothing is new.

    python -m benchmarks.main_job sample                     the built-in sample: first run, then again with nothing new
    python -m benchmarks.main_job PATH [INTERVAL]            the same on a file or folder of bars
    python -m benchmarks.main_job new-day PATH               one new day on one year and on five years of daily bars

Every run is the real command in a process of its own, in a new home that is removed afterwards.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from benchmarks.homes import new_homes

EXPERIMENT = """
name: new-day
dataset: {{source: "file:{folder}"}}
features: {{sets: [alpha30, classic]}}
label: {{horizon: 5}}
engines: [{{name: momentum}}, {{name: ridge}}]
splits: {{train: 100, test: 21, embargo: 20}}
"""

NEW_DAYS = 5


def run(home: Path, *arguments: str) -> tuple[float, dict]:
    """Seconds of wall clock of one `tidemill run`, and its answer."""
    environment = {**os.environ, "TIDEMILL_HOME": str(home), "TIDEMILL_KEEPER_LINGER": "60"}
    begin = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tidemill")), "run", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, json.loads(done.stdout)


def show(title: str, seconds: float, answer: dict) -> None:
    print(f"\n{title}: {seconds:.1f} s")
    for name, took, worked in answer["steps"]:
        print(f"  {name:28} {took:8.2f} s  {'' if worked else '(nothing to do)'}")
    inside = sum(step[1] for step in answer["steps"])
    print(f"  {'start, imports, checks':28} {seconds - inside:8.2f} s")


def main_job(*arguments: str) -> None:
    with new_homes() as (home,):
        first, answer = run(home, *arguments)
        show("first run", first, answer)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 / 1024
        print(f"  largest process: {peak:.2f} GiB")
        again, answer = run(home, *arguments)
        show("again, nothing new", again, answer)


def new_day(path: Path) -> None:
    """Both histories grow by the same days in turn, so that what the machine does beside falls on both alike."""
    bars = pl.read_parquet(path)
    days = bars["date"].unique().sort()
    histories = {"one year": 252, "five years": 1_259}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in histories}
    with new_homes(2) as homes:
        places = dict(zip(histories, (home.parent for home in homes), strict=True))
        for name, count in histories.items():
            data = places[name] / "bars"
            data.mkdir()
            first = days[-min(count, len(days))]
            bars.filter(pl.col("date").is_between(first, days[-1 - NEW_DAYS])).write_parquet(data / "base.parquet")
            (places[name] / "experiment.yaml").write_text(EXPERIMENT.format(folder=data))
            print(f"{name}: first run {_run_in(places[name])[0]:.1f} s")
        for day in days[-NEW_DAYS:]:
            for name, place in places.items():
                bars.filter(pl.col("date") == day).write_parquet(place / "bars" / f"{day}.parquet")
                before = _processor()
                seconds, answer = _run_in(place)
                took[name].append((seconds, _processor() - before))
                if day == days[-1]:
                    show(f"{name}, one new day", seconds, answer)
    print()
    for at, unit in enumerate(("seconds", "seconds of a processor")):
        columns = [[times[at] for times in took[name]] for name in histories]
        for name, column in zip(histories, columns, strict=True):
            print(f"{name}: one new day {', '.join(f'{value:.1f}' for value in column)} {unit}")
        for word, figure in (("best", min), ("median", statistics.median)):
            one, five = (figure(column) for column in columns)
            print(f"  {word}: {one:.1f} on one year, {five:.1f} on five years, ratio {five / one:.2f}")


def _processor() -> float:
    """Processor seconds of the runs so far, without the servers that they talk to."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_in(place: Path) -> tuple[float, dict]:
    return run(place / "home", "--experiment", str(place / "experiment.yaml"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["new-day", path]:
            new_day(Path(path))
        case ["sample"] | []:
            main_job()
        case [path, interval]:
            main_job("--source", f"file:{path}", "--interval", interval)
        case [path]:
            main_job("--source", f"file:{path}")

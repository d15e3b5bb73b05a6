"""Streaming equals batch (NUMBERS, Causality proof): bar by bar, with the state reloaded in a fresh process at random bars.

A process is given features by name, a state and bars on its standard input, and answers rows and the state after them; so
nothing that a process keeps in memory can help it.
"""

from __future__ import annotations

import io
import subprocess  # nosec B404  # starts this interpreter with a list of arguments
import sys
from itertools import pairwise

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, UnavailableError
from tidemill.features.api import FeatureSet, compute, feature_set
from tidemill.features.state import FeatureState
from tidemill.market.panel_files import stepped
from tidemill.study.registry import SHIPPED_REGISTRY, Registry
from tidemill.user_modules.loading import load_modules
from tidemill.user_modules.wire import Bounds
from tidemill.validation.causality.observation import differing, observed
from tidemill.validation.causality.proof import Proof, Refutation

_SECONDS = 300.0


class _Task(msgspec.Struct, frozen=True):
    """names: of the features. bounds, beside, files: as of the registry that knows them. state: empty at the start."""

    names: tuple[str, ...]
    beside: tuple[str, ...]
    files: tuple[str, ...]
    bounds: Bounds
    state: bytes
    bars: bytes


class _Done(msgspec.Struct, frozen=True):
    rows: bytes
    state: bytes


def prove_streaming(
    features: FeatureSet, bars: pl.DataFrame, *, registry: Registry = SHIPPED_REGISTRY, processes: int = 2, seed: int = 7
) -> Proof:
    """Step over `bars`, each stretch in a process of its own from the saved state; every value must have the batch's bits.

    features: compiled ones, of `registry`. Raises UnavailableError when a process
    dies.
    """
    ordered = bars.sort("symbol", "open_time")
    batch = observed(compute(ordered, features)[0], 0, None)
    rows, state = [], b""
    beside, files = (tuple(str(module.file) for module in modules) for modules in (registry.beside, registry.files))
    for stretch in _stretches(ordered, processes, seed):
        done = _in_a_process(_Task(features.names, beside, files, registry.bounds, state, _to_bytes(stretch)))
        rows.append(pl.read_ipc_stream(io.BytesIO(done.rows)))
        state = done.state
    stream = observed(pl.concat(rows).sort("symbol", "open_time"), 0, None)
    every = np.arange(ordered.height)
    found = differing(batch, stream, (every, every), features.names)
    refuted = tuple(_refutation(name, *batch.row(at)) for name, at in found.items())
    return Proof(proven=tuple(name for name in features.names if name not in found), refuted=refuted, runs=len(rows) + 1)


def _refutation(name: str, symbol: str, time: object) -> Refutation:
    return Refutation(name, symbol, time, "bar by bar it has another value than over all bars at once")  # type: ignore[arg-type]  # a time of the bars


def _stretches(bars: pl.DataFrame, count: int, seed: int) -> list[pl.DataFrame]:
    times = bars["open_time"].unique().sort()
    inner = np.arange(1, len(times))
    cuts = np.sort(np.random.default_rng(seed).choice(inner, size=min(count - 1, len(inner)), replace=False))
    bounds = [0, *cuts.tolist(), len(times)]
    place = times.to_frame().with_row_index("__at")
    numbered = bars.join(place, on="open_time", how="left", maintain_order="left")
    return [
        numbered.filter(pl.col("__at").is_between(first, last, closed="left")).drop("__at") for first, last in pairwise(bounds)
    ]


def _to_bytes(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def _in_a_process(task: _Task) -> _Done:
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(  # nosec B603  # our own interpreter and module
            command, input=msgspec.msgpack.encode(task), capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"Streaming took longer than {_SECONDS:g} s and was stopped. Give fewer bars.") from exc
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UnavailableError(f"The process that streams the features died: {said[-1] if said else 'it left no message'}.")
    return msgspec.msgpack.decode(done.stdout, type=_Done)


def _main() -> None:
    """In the process: take the task from stdin, answer on stdout."""
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Task)
    settled = Registry(task.bounds, load_modules(task.beside, task.bounds))
    features = feature_set(*task.names, known=settled.with_files(task.files).features)
    state = FeatureState.from_bytes(task.state) if task.state else None
    frame, after = stepped(pl.read_ipc_stream(io.BytesIO(task.bars)), features, state)
    whole = (state or after).updated(after)
    sys.stdout.buffer.write(msgspec.msgpack.encode(_Done(_to_bytes(frame), whole.to_bytes())))


if __name__ == "__main__":
    if sys.stdin.isatty():
        raise InputError("This module is started by a causality proof and reads nothing from a terminal.")
    _main()

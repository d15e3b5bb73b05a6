"""A chain's state as a file: from it another process goes on with the next slot, with the bits of a chain that never stopped.

A sealed file of MessagePack, which holds NaN; nothing in it is executed. It says by what it was made: code of each link with a
state, feature set, strategy with its parameters. Where one of these is another one here it is refused, and the state is
rebuilt from the dataset's first bar.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import IntegrityError
from tidemill.durable import read_sealed, write_sealed
from tidemill.features.state import FeatureState
from tidemill.market.adjusting import Adjusted, ToldAction
from tidemill.models.recent import RecentRows
from tidemill.provenance import fingerprint, stated
from tidemill.risk.drawdown import DrawdownState
from tidemill.strategies.base import Carried
from tidemill.trading.account import Account
from tidemill.trading.chain import ChainState
from tidemill.trading.context import ContextState
from tidemill.trading.decider import Decider, Known, code_of
from tidemill.trading.ordering import AccountState

FORMAT = 1
# Links whose code gives the state its meaning. Models and checks remember nothing that is saved.
_LINKS = ("adjust", "context", "features", "strategy", "chain", "decide")


class SavedChain(NamedTuple):
    """after: when the last slot opened that the state has seen; the next one is to be stepped."""

    state: ChainState
    after: datetime


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    content: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Array:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return cls(little.dtype.str, array.shape, little.tobytes())

    def array(self) -> NDArray[Any]:
        """ValueError or TypeError where this is no array of numbers."""
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "biuf" or min(self.shape, default=0) < 0:
            raise ValueError(f"no array of numbers has the type {self.dtype} and the shape {self.shape}")
        return np.frombuffer(self.content, dtype=dtype).reshape(self.shape).astype(dtype.newbyteorder("="))


class _Adjust(msgspec.Struct, frozen=True):
    symbols: tuple[str, ...]
    factor: _Array
    split: _Array
    started: _Array
    waiting: tuple[ToldAction, ...]


class _Recent(msgspec.Struct, frozen=True):
    symbols: tuple[str, ...]
    values: _Array
    times: _Array


class _Carried(msgspec.Struct, frozen=True):
    symbols: tuple[str, ...]
    by_symbol: dict[str, _Array]
    whole: dict[str, _Array]


class _Account(msgspec.Struct, frozen=True):
    symbols: tuple[str, ...]
    account: tuple[_Array, ...]
    book: _Array
    drawdown: DrawdownState
    ordinal: _Array
    slots: int
    opened: int
    first: int
    waiting: tuple[ToldAction, ...]


class _Version(msgspec.Struct, frozen=True):
    format: int
    made_by: dict[str, str]


class _Form(_Version, frozen=True):
    after: datetime
    adjust: _Adjust
    context: ContextState
    features: bytes
    recent: _Recent
    strategy: _Carried
    neutral: _Carried | None
    account: _Account | None
    tails: _Recent | None


def save_chain(path: Path, saved: SavedChain, decider: Decider, known: Known) -> None:
    """Write the state of a chain whose last slot `decider` decided, whole or not at all. Raises OSError."""
    state = saved.state
    form = _Form(
        FORMAT,
        _made_by(decider, known),
        saved.after,
        _Adjust(*_stored(state.adjust)),
        state.context,
        state.features.to_bytes(),
        _Recent(*_stored(state.recent)),
        _carried(state.strategy),
        None if state.neutral is None else _carried(state.neutral),
        None if state.account is None else _account(state.account),
        None if state.tails is None else _Recent(*_stored(state.tails)),
    )
    write_sealed(path, msgspec.msgpack.encode(form))


def load_chain(path: Path, decider: Decider, known: Known) -> SavedChain:
    """The state that `decider` goes on from.

    IntegrityError for one that is damaged, of a later version, made by other code or for other features or another strategy,
    or with fewer bars than the models look back at; FileNotFoundError without one.
    """
    content = read_sealed(path)
    try:
        version = msgspec.msgpack.decode(content, type=_Version)
        _require(path, version, decider, known)
        saved = _read(msgspec.msgpack.decode(content, type=_Form))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as exc:
        raise IntegrityError(f"The state in {path} is damaged ({exc}). {_ANEW}") from exc
    if len(saved.state.recent.times) < decider.look_back:
        raise IntegrityError(
            f"The state in {path} holds the last {len(saved.state.recent.times)} bars; the models of {decider.id} look back "
            f"at {decider.look_back}. {_ANEW}"
        )
    return saved


_ANEW = "Remove it; the state is rebuilt from the first bar."


def _require(path: Path, version: _Version, decider: Decider, known: Known) -> None:
    if version.format != FORMAT:
        raise IntegrityError(f"The state in {path} has format {version.format}, this version reads {FORMAT}. {_ANEW}")
    here = _made_by(decider, known)
    others = [name for name in sorted({*here, *version.made_by}) if here.get(name) != version.made_by.get(name)]
    if others:
        raise IntegrityError(f"The state in {path} was made with another {', another '.join(others)}. {_ANEW}")


def _made_by(decider: Decider, known: Known) -> dict[str, str]:
    """What a state is worth nothing without, by the name that a person reads."""
    strategy, code = decider.strategy, code_of((), decider.strategy.name, known)
    links = (*_LINKS, "neutralise") if strategy.neutralise is not None else _LINKS
    return {f"code of {link}": code[link] for link in links} | {
        "feature set": decider.feature_fingerprint,
        "strategy": fingerprint(stated(strategy)),
        "interval": decider.interval,
        "anchor": decider.anchor.isoformat(),
        "half-life of the sentiment": str(decider.half_life),
    }


def _stored(fields: tuple[Any, ...]) -> list[Any]:
    return [_Array.of(field) if isinstance(field, np.ndarray) else field for field in fields]


def _carried(state: Carried) -> _Carried:
    return _Carried(state.symbols, _arrays(state.by_symbol), _arrays(state.whole))


def _account(state: AccountState) -> _Account:
    return _Account(*_stored(state._replace(account=tuple(map(_Array.of, state.account)))))  # type: ignore[arg-type]


def _arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, _Array]:
    return {name: _Array.of(array) for name, array in arrays.items()}


def _read(form: _Form) -> SavedChain:
    adjust = form.adjust
    state = ChainState(
        Adjusted(adjust.symbols, adjust.factor.array(), adjust.split.array(), adjust.started.array(), adjust.waiting),
        form.context,
        FeatureState.from_bytes(form.features),
        _recent_of(form.recent),
        _carried_of(form.strategy),
        None if form.neutral is None else _carried_of(form.neutral),
        None if form.account is None else _account_of(form.account),
        None if form.tails is None else _recent_of(form.tails),
    )
    return SavedChain(state, form.after)


def _recent_of(form: _Recent) -> RecentRows:
    return RecentRows(form.symbols, form.values.array(), form.times.array())


def _account_of(form: _Account) -> AccountState:
    arrays = [one.array() for one in form.account]
    if len(arrays) != len(Account._fields):
        raise ValueError(f"an account has {len(Account._fields)} fields, this one {len(arrays)}")
    return AccountState(
        form.symbols,
        Account._make(arrays),
        form.book.array(),
        form.drawdown,
        form.ordinal.array(),
        form.slots,
        form.opened,
        form.first,
        form.waiting,
    )


def _carried_of(form: _Carried) -> Carried:
    by_symbol, whole = ({name: one.array() for name, one in arrays.items()} for arrays in (form.by_symbol, form.whole))
    return Carried(form.symbols, by_symbol, whole)

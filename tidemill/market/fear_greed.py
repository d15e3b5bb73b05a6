"""The Fear & Greed Index of alternative.me: one number a day, 0 (fear) to 100 (greed), from its public API or from a file.

A value is known one day after its stamp: what the index says on its own day still changes. So the value of the running day is
not taken at all, and a daily value joins an hourly panel from the end of its day.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec

from tidemill.domain.errors import InputError, MalformedError, RefusedError, UnknownNameError
from tidemill.domain.intervals import EPOCH, Interval
from tidemill.provenance import fingerprint
from tidemill.services import Clock, Service, ServiceHealth, ServiceOptions

if TYPE_CHECKING:
    import polars as pl

BASE_URL = "https://api.alternative.me"
API = "alternative.me"
SOURCES = (API, "file:PATH")
# The columns that it becomes beside bars; features of these names read them.
COLUMNS = ("fear_greed", "fear_greed_change_7")
DELAY = timedelta(days=1)
# An index that nobody has heard of for longer says nothing about today.
HELD = timedelta(days=7)
_DAY = Interval.parse("1d")
# Days asked for again, so that a value that was changed since is noticed.
_OVERLAP = 8
_DATES = ("date", "timestamp", "stamp", "open_time", "time")
_VALUES = ("fng_value", "value", "fear_greed", "fear_greed_index")


class _Value(msgspec.Struct, frozen=True):
    value: Annotated[int, msgspec.Meta(ge=0, le=100)]
    timestamp: Annotated[int, msgspec.Meta(ge=1_500_000_000, lt=10_000_000_000)]


class _Metadata(msgspec.Struct, frozen=True):
    error: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: list[_Value]
    metadata: _Metadata = _Metadata()


# Numbers come as strings, so the decoder is lax; the bounds above refuse what is no number of the index.
_ANSWER = msgspec.json.Decoder(_Answer, strict=False)


class FearGreedSource(Protocol):
    """Where the index comes from. `name`: under which its values are kept."""

    @property
    def name(self) -> str: ...

    async def values(self, since: datetime | None) -> "pl.DataFrame":
        """stamp, value of every settled day after `since` (all when None) and perhaps of some before, ascending."""
        ...

    async def close(self) -> None: ...


class FearGreedApi:
    """The public API. It is asked for as many days as are missing, in one request."""

    name = API

    def __init__(self, *, base_url: str = BASE_URL, options: ServiceOptions | None = None, clock: Clock | None = None) -> None:
        self._service = Service("the Fear & Greed Index", base_url, options=options, clock=clock)

    async def values(self, since: datetime | None) -> "pl.DataFrame":
        """See FearGreedSource. Raises the errors of `Service.get`, and MalformedError for two values of one day."""
        now = self._service.clock.now()
        days = 0 if since is None else max((now - since).days, 0) + _OVERLAP  # 0 asks for all
        reply = await self._service.get("/fng/", _ANSWER, params={"limit": str(days), "format": "json"}, check=_refusal)
        stamps = [EPOCH + timedelta(seconds=item.timestamp) for item in reply.value.data]
        return settled(stamps, [float(item.value) for item in reply.value.data], now=now)

    def health(self) -> ServiceHealth:
        return self._service.health()

    async def close(self) -> None:
        await self._service.close()


def _refusal(answer: _Answer) -> None:
    if answer.metadata.error:
        detail = " ".join(answer.metadata.error.split())[:200]
        raise RefusedError(f"The Fear & Greed Index refuses the request: {detail}. Try again later.", 200, detail)
    if not answer.data:
        raise MalformedError("The Fear & Greed Index answered without a value. Try again later.")


class FearGreedFile:
    """A CSV or Parquet file with a date and a value, or a JSON file as the API answers. Unreadable lines are left out."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        if not path.is_file():
            raise InputError(f"The file {path} of the Fear & Greed Index does not exist. Check the path.")
        self.path = path
        self.name = f"file-{fingerprint(str(path.absolute()))[:8]}"
        self._clock = clock or Clock()

    async def values(self, since: datetime | None) -> "pl.DataFrame":
        """See FearGreedSource. Raises InputError when the file holds no usable line or two values of one day."""
        stamps, values = _from_json(self.path) if self.path.suffix.lower() == ".json" else _from_table(self.path)
        if not stamps:
            raise InputError(f"{self.path} holds no usable line. Give a date and a value from 0 to 100 in each.")
        try:
            return settled(stamps, values, now=self._clock.now())
        except MalformedError as exc:
            raise InputError(f"{self.path}: {exc}") from exc

    async def close(self) -> None:
        """Nothing is held open."""


def _from_json(path: Path) -> tuple[list[datetime], list[float]]:
    try:
        answer = _ANSWER.decode(path.read_bytes())
    except msgspec.MsgspecError as exc:
        raise InputError(f"{path} is not an answer of the Fear & Greed API: {exc}.") from exc
    return [EPOCH + timedelta(seconds=item.timestamp) for item in answer.data], [float(item.value) for item in answer.data]


def _from_table(path: Path) -> tuple[list[datetime], list[float]]:
    import polars as pl

    from tidemill.market.raw_bars import open_times
    from tidemill.market.tables import table_chunks, table_columns

    given = {name.strip().lower(): name for name in reversed(table_columns(path))}
    date, value = (next((given[name] for name in names if name in given), None) for names in (_DATES, _VALUES))
    if date is None or value is None:
        raise InputError(f"{path} has no column for the date or the value. Name them date and value.")
    table = pl.concat(list(table_chunks(path, [date, value])), how="vertical_relaxed")
    read = pl.DataFrame(
        [open_times(table[date], _DAY).alias("stamp"), table[value].cast(pl.Float64, strict=False).alias("value")]
    )
    usable = read.drop_nulls().filter(pl.col("value").is_between(0.0, 100.0))
    return usable["stamp"].to_list(), usable["value"].to_list()


def settled(stamps: list[datetime], values: list[float], *, now: datetime) -> "pl.DataFrame":
    """stamp, value of the days that are over, ascending. MalformedError for two values of one stamp."""
    import polars as pl

    frame = pl.DataFrame({"stamp": stamps, "value": values}, schema={"stamp": pl.Datetime("us", "UTC"), "value": pl.Float64})
    frame = frame.unique().filter(pl.col("stamp") + DELAY <= now).sort("stamp")
    twice = frame.filter(pl.col("stamp").is_duplicated())
    if twice.height:
        raise MalformedError(f"The Fear & Greed Index has two values for {twice['stamp'][0]:%Y-%m-%d}. Nothing was stored.")
    return frame


def as_known(versions: "pl.DataFrame") -> "pl.DataFrame":
    """known_at, fear_greed, fear_greed_change_7, ascending: what was known of the newest day from each moment on.

    versions: stamp, value, known_at; a day may have several. A version of an old day that came after a newer day was known
    changes nothing any more. The change is to the version of seven days before that was known then; NaN where that day is
    missing.
    """
    import polars as pl

    ordered = versions.select("stamp", "value", "known_at").sort("known_at", "stamp")
    newest = ordered.filter(pl.col("stamp") >= pl.col("stamp").cum_max())
    week = ordered.select((pl.col("stamp") + timedelta(days=7)).alias("stamp"), "known_at", pl.col("value").alias("before"))
    joined = newest.join_asof(week, on="known_at", by="stamp", strategy="backward", check_sortedness=False)
    return joined.select(
        "known_at",
        pl.col("value").alias("fear_greed"),
        (pl.col("value") - pl.col("before")).fill_null(float("nan")).alias("fear_greed_change_7"),
    ).unique("known_at", keep="last", maintain_order=True)


def join_known(bars: "pl.DataFrame", known: "pl.DataFrame", interval: Interval) -> "pl.DataFrame":
    """The bars with the columns of `as_known`: the value known at each bar's close, no older than seven days, else NaN."""
    import polars as pl

    names = [name for name in known.columns if name != "known_at"]
    times = bars.select(pl.col("open_time").unique().sort()).with_columns(
        (pl.col("open_time") + interval.delta).alias("__closed")
    )
    joined = times.join_asof(
        known.sort("known_at"), left_on="__closed", right_on="known_at", strategy="backward", tolerance=HELD
    ).select("open_time", *(pl.col(name).fill_null(float("nan")) for name in names))
    return bars.join(joined, on="open_time", how="left", maintain_order="left")


def require_source(spec: str) -> None:
    """UnknownNameError unless `spec` names a source of the index."""
    if spec != API and not (spec.startswith("file:") and len(spec) > len("file:")):
        raise UnknownNameError("source of the Fear & Greed Index", spec, SOURCES)


def fear_greed_source(spec: str, options: ServiceOptions | None = None) -> FearGreedSource:
    """The source named `alternative.me` or `file:PATH`. Close it when done."""
    require_source(spec)
    if spec == API:
        return FearGreedApi(options=options)
    return FearGreedFile(Path(spec.removeprefix("file:")).expanduser())


def next_due(newest: datetime | None) -> datetime:
    """When a value after `newest` can be known: before that nobody need be asked."""
    return datetime.min.replace(tzinfo=UTC) if newest is None else newest + DELAY + _DAY.delta

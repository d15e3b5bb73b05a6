"""News from a file: CSV (also gzipped), JSON lines or Parquet, one item a row, read in batches so that memory stays bounded."""

import asyncio
import csv
import gzip
import itertools
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.market import slug
from tidemill.market.news import RawNews
from tidemill.market.tables import CSV_SUFFIXES, PARQUET_SUFFIXES, stem, table_chunks, table_columns

BATCH_ROWS = 2_000
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_SEPARATORS = ",;\t|"
_LINE_BYTES = 16 << 20
# Field → names that it goes by, the plainest first.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "symbols": ("symbols", "symbol", "tickers", "ticker", "stocks", "stock", "related"),
    "published": (
        "published_at",
        "published",
        "date_published",
        "pubdate",
        "datetime",
        "date",
        "time",
        "timestamp",
        "created_at",
    ),
    "received": ("received_at", "known_at", "receipt", "received"),
    "headline": ("headline", "title"),
    "body": ("body", "content_text", "content", "summary", "description", "text"),
    "publisher": ("source", "publisher", "provider", "author"),
    "tags": ("tags", "categories", "category", "keywords"),
    "url": ("url", "link"),
    "id": ("id", "guid", "uuid", "news_id"),
}


def news_file(place: str) -> "NewsFile":
    """The news file at a path as a person writes it."""
    return NewsFile(Path(place).expanduser())


class NewsFile:
    """A `NewsSource` over one file. Raises InputError for a file of another kind, or without a headline and a time."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"There is no news file {path}. Check the path.")
        self.path = path
        self._name = ""
        name = path.name.lower()
        self._json = name.endswith(JSON_SUFFIXES)
        if not self._json and not name.endswith(CSV_SUFFIXES + PARQUET_SUFFIXES):
            raise InputError(f"{path} is neither CSV, JSON lines (.jsonl) nor Parquet. Save the news in one of these formats.")

    @property
    def name(self) -> str:
        stemmed = stem(self.path).removesuffix(".gz").removesuffix(".jsonl").removesuffix(".ndjson")
        return self._name or f"file.{slug(stemmed)}"

    def kept_under(self, name: str) -> "NewsFile":
        """This source, its items under another name."""
        self._name = name
        return self

    @property
    def origin(self) -> str:
        return self.path.name

    async def batches(self) -> AsyncIterator[tuple[list[RawNews], datetime | None]]:
        """Rows as they stand in the file; each has its own receipt, or none. InputError for what cannot be read at all."""
        rows = self._rows()
        while batch := await asyncio.to_thread(lambda: list(itertools.islice(rows, BATCH_ROWS))):
            yield batch, None

    async def close(self) -> None:
        """Nothing is held open between calls."""

    def _rows(self) -> Iterator[RawNews]:
        if self._json:
            return _json_rows(self.path)
        if self.path.name.lower().endswith(PARQUET_SUFFIXES):
            return _parquet_rows(self.path)
        return _csv_rows(self.path)


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """Field of RawNews → the one of `names` that holds it."""
    given = {name.strip().lower().replace(" ", "_"): name for name in reversed(list(names))}
    found = {field: next((given[alias] for alias in aliases if alias in given), None) for field, aliases in FIELDS.items()}
    return {field: name for field, name in found.items() if name is not None}


def raw_news(line: int, record: Mapping[str, Any], columns: Mapping[str, str]) -> RawNews:
    return RawNews(line=line, **{field: _text(record.get(name)) for field, name in columns.items()})


def _text(value: object) -> str:
    """A cell as text. Lists, as Parquet and JSON have them, become words."""
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return " ".join(_text(part) for part in value)
    if isinstance(value, dict):
        return _text(value.get("name") or value.get("title"))
    return str(value)


def _required(columns: dict[str, str], path: Path) -> dict[str, str]:
    if not {"headline", "body"} & columns.keys() or not {"published", "received"} & columns.keys():
        raise InputError(
            f"{path} needs a column headline (or body) and a column published_at (or received_at). Rename the columns."
        )
    return columns


def _parquet_rows(path: Path) -> Iterator[RawNews]:
    columns = _required(columns_of(table_columns(path)), path)
    for chunk in table_chunks(path, list(columns.values())):
        for record in chunk.iter_rows(named=True):
            yield raw_news(record["source_line"], record, columns)


def _opened(path: Path) -> TextIO:
    opener: Callable[..., TextIO] = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _csv_rows(path: Path) -> Iterator[RawNews]:
    """A quoted cell may hold line ends, as the bodies of news do."""
    csv.field_size_limit(_LINE_BYTES)
    try:
        with _opened(path) as stream:
            header = stream.readline()
            separator = max(_SEPARATORS, key=header.count)
            names = next(csv.reader([header], delimiter=separator), [])
            columns = _required(columns_of(names), path)
            reader = csv.DictReader(stream, fieldnames=names, delimiter=separator)
            for record in reader:
                yield raw_news(reader.line_num + 1, record, columns)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as exc:
        raise InputError(f"{path} cannot be read as CSV: {exc}. Save it again as CSV in UTF-8.") from exc


def _json_rows(path: Path) -> Iterator[RawNews]:
    """One object a line; a line that is none becomes an empty row, which is refused with its number."""
    try:
        with _opened(path) as stream:
            for number in itertools.count(1):
                line = stream.readline(_LINE_BYTES)
                if not line:
                    return
                if line.strip():
                    yield _json_row(number, line)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise InputError(f"{path} cannot be read as JSON lines: {exc}. Save it again in UTF-8.") from exc


def _json_row(number: int, line: str) -> RawNews:
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return RawNews(line=number)
    return raw_news(number, record, columns_of(record))

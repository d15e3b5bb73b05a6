"""News items: when they were known, which are refused and why, which symbols they are about; and reading them from files."""

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.market.news import Mentions, NewsItem, RawNews, RejectedNews, items_frame, judged
from tidemill.market.news_files import NewsFile
from tidemill.market.news_sources import open_news

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)


def judge(*rows: RawNews, receipt: datetime | None = None) -> tuple[list[NewsItem], list[RejectedNews]]:
    return judged(rows, "test", now=NOW, receipt=receipt)


def one(**fields: Any) -> NewsItem:
    items, refused = judge(RawNews(line=1, **{"headline": "Something happened", "published": "2024-03-05T12:00:00Z", **fields}))
    assert refused == []
    return items[0]


def reason(**fields: Any) -> str:
    given = {"headline": "Something happened", "published": "2024-03-05T12:00:00Z", **fields}
    items, refused = judge(RawNews(line=7, **given))
    assert items == []
    assert refused[0].line == 7
    return str(refused[0].reason)


async def read(path: Path) -> tuple[list[NewsItem], list[RejectedNews]]:
    source = NewsFile(path)
    rows = [row async for batch, _ in source.batches() for row in batch]
    return judged(rows, source.name, now=NOW, receipt=None)


# When an item is known


def test_the_receipt_is_when_an_item_is_known() -> None:
    made = one(received="2024-03-05T12:00:07.250Z")
    assert (made.published_at, made.known_at, made.vintage_known) == (NOON, NOON + timedelta(seconds=7.25), True)


def test_history_without_a_receipt_takes_its_publication_and_is_marked() -> None:
    made = one()
    assert (made.known_at, made.vintage_known) == (NOON, False)


def test_nothing_is_known_before_it_is_published() -> None:
    assert one(received="2024-03-05T10:00:00Z").known_at == NOON


def test_a_bare_date_counts_from_the_end_of_its_day() -> None:
    for text in ("2024-03-05", "2024/03/05", "20240305"):
        assert one(published=text).known_at == datetime(2024, 3, 6, tzinfo=UTC)
    assert one(published="", received="2024-03-05").known_at == datetime(2024, 3, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-05T12:00:00",
        "2024-03-05 13:00:00+01:00",
        "Tue, 05 Mar 2024 12:00:00 GMT",
        "Tue, 05 Mar 2024 07:00:00 -0500",
        "1709640000",
        "1709640000000",
        "1709640000000000",
    ],
)
def test_a_time_is_read_in_the_forms_that_sources_use(text: str) -> None:
    assert one(published=text).known_at == NOON


def test_what_a_feed_sends_is_known_at_its_receipt_whatever_it_says_of_its_date() -> None:
    for text in ("2024-03-05T12:00:00Z", "2030-01-01", "soon", ""):
        items, refused = judge(RawNews(line=1, headline="News", published=text), receipt=NOON)
        assert refused == []
        assert (items[0].known_at, items[0].vintage_known) == (NOON, True)


# What is refused


def test_rows_that_are_no_news_are_refused_with_a_reason() -> None:
    assert reason(headline="", body="  \x00 ") == "null"
    assert reason(published="") == "null"
    assert reason(published="yesterday") == "unreadable"
    assert reason(received="99999999999999999999999") == "unreadable"
    assert reason(published="2024-06-02") == "future"
    assert reason(received="2024-06-01T12:00:01Z") == "future"
    assert reason(symbols="../../etc") == "bad_symbol"


@given(st.builds(RawNews, line=st.integers(1, 9), headline=st.text(), body=st.text(), published=st.text(), received=st.text(),
                 symbols=st.text(), tags=st.text(), publisher=st.text(), url=st.text(), id=st.text()))  # fmt: skip
def test_any_row_becomes_an_item_that_can_be_stored_or_is_refused(row: RawNews) -> None:
    items, refused = judge(row)
    assert len(items) + len(refused) == 1
    for item in items:
        assert item.known_at <= NOW
        assert "\x00" not in item.headline + item.body + item.publisher
        items_frame(items).write_ipc_stream(None)


def test_text_is_one_line_without_markup_and_bounded() -> None:
    made = one(headline="<b>Fed &amp; rates</b>\n rise", body="x" * 50_000)
    assert made.headline == "Fed & rates rise"
    assert len(made.body) == 4_000


# One item once


def test_the_same_item_twice_counts_once_with_its_earliest_receipt() -> None:
    late, early = (RawNews(line=line, headline="News", published="2024-03-05T12:00:00Z", received=f"2024-03-05T1{hour}:00:00Z")
                   for line, hour in ((1, 5), (2, 3)))  # fmt: skip
    items, _ = judge(late, early)
    assert [item.known_at.hour for item in items] == [13]


def test_a_changed_headline_is_another_item_and_an_id_joins_what_was_published_twice() -> None:
    first = RawNews(line=1, id="a", headline="Talks begin", published="2024-03-05T12:00:00Z")
    again = RawNews(line=2, id="a", headline="Talks begin", published="2024-03-05T15:00:00Z")
    changed = RawNews(line=3, id="a", headline="Talks fail", published="2024-03-05T16:00:00Z")
    items, _ = judge(first, again, changed)
    assert sorted((item.headline, item.known_at.hour) for item in items) == [("Talks begin", 12), ("Talks fail", 16)]


def test_rows_of_one_item_for_several_symbols_stay_apart() -> None:
    items, _ = judge(*(RawNews(line=1, headline="Deal", published="2024-03-05T12:00:00Z", symbols=name) for name in "AB"))
    assert sorted(item.symbols for item in items) == ["A", "B"]


# Which symbols an item is about

MENTIONS = Mentions(
    ["AAPL", "BRK.B", "BTCUSDT", "F"], {"AAPL": ("Apple", "Apple Inc."), "BTCUSDT": ("bitcoin",), "GONE": ("gone",)}
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apple opens a store", ["AAPL"]),
        ("A pineapple a day", []),
        ("$AAPL and $brk.b lead", ["AAPL", "BRK.B"]),
        ("Apple (NASDAQ: AAPL) sues Ford (NYSE:F)", ["AAPL", "F"]),
        ("F grades for all, and what is gone", []),
        ("Bitcoin rises", ["BTCUSDT"]),
        ("Costs $5 or US$AAPL", []),
    ],
)
def test_a_text_is_about_the_symbols_that_it_marks_or_names(text: str, expected: list[str]) -> None:
    assert MENTIONS.symbols("", "", text) == expected


def test_what_the_source_states_decides_and_tags_count_when_they_are_symbols() -> None:
    assert MENTIONS.symbols("F XYZ", "AAPL", "Apple") == ["F"]
    assert MENTIONS.symbols("XYZ", "", "Apple") == []
    assert MENTIONS.symbols("", "tech AAPL", "") == ["AAPL"]


# Files

RECORDS = [
    {"symbols": "AAPL, MSFT", "published_at": "2024-03-05T12:00:00Z", "received_at": "2024-03-05T12:00:02Z",
     "headline": "Firms, both, agree", "body": "First line.\nSecond \"quoted\" line.", "source": "wire"},
    {"symbols": "", "published_at": "2024-03-06", "received_at": "", "headline": "Markets calm", "body": "", "source": "wire"},
    {"symbols": "AAPL", "published_at": "never", "received_at": "", "headline": "Bad time", "body": "", "source": "wire"},
]  # fmt: skip


def as_csv(records: list[dict[str, str]]) -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [",".join(records[0]), *(",".join(cell(text) for text in record.values()) for record in records)]
    return "\r\n".join(lines) + "\r\n"


def write(path: Path) -> Path:
    text = as_csv(RECORDS) if ".csv" in path.name else "\n".join(json.dumps(record) for record in RECORDS)
    if path.suffix == ".parquet":
        pl.DataFrame(RECORDS).write_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return path


@pytest.mark.parametrize("name", ["news.csv", "news.csv.gz", "news.jsonl", "news.ndjson.gz", "news.parquet"])
async def test_every_form_of_file_gives_the_same_items_and_the_same_refusals(tmp_path: Path, name: str) -> None:
    items, refused = await read(write(tmp_path / name))
    assert [(item.symbols, item.headline, item.publisher) for item in items] == [
        ("AAPL MSFT", "Firms, both, agree", "wire"),
        ("", "Markets calm", "wire"),
    ]
    assert items[0].body == 'First line. Second "quoted" line.'
    assert [(row.reason, row.symbol) for row in refused] == [("unreadable", "AAPL")]
    assert NewsFile(tmp_path / name).name == "file.news"


async def test_parquet_and_json_may_hold_times_and_lists(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"tickers": [["A", "B"], []], "datetime": [NOON, NOON + timedelta(hours=1)], "title": ["One", "Two"]},
        schema_overrides={"tickers": pl.List(pl.String)},
    )
    frame.write_parquet(tmp_path / "news.parquet")
    items, refused = await read(tmp_path / "news.parquet")
    assert (refused, [(item.symbols, item.known_at) for item in items]) == (
        [],
        [("A B", NOON), ("", NOON + timedelta(hours=1))],
    )
    (tmp_path / "n.jsonl").write_text('{"tickers": ["A", "B"], "datetime": 1709640000, "title": "One"}\nnot json\n[1]\n')
    items, refused = await read(tmp_path / "n.jsonl")
    assert [(item.symbols, item.known_at) for item in items] == [("A B", NOON)]
    assert [row.line for row in refused] == [2, 3]


async def test_a_parquet_of_dates_counts_from_the_end_of_the_day(tmp_path: Path) -> None:
    pl.DataFrame({"date": [date(2024, 3, 5)], "headline": ["News"]}).write_parquet(tmp_path / "news.parquet")
    items, _ = await read(tmp_path / "news.parquet")
    assert items[0].known_at == datetime(2024, 3, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("news.csv", b"headline,body\nA,B\n", "published_at"),
        ("news.csv", b"symbol,published_at\nA,2024-01-01\n", "headline"),
        ("news.csv", b"", "headline"),
        ("news.csv", b"headline,date\n\xff\xfe,2024-01-01\n", "UTF-8"),
        ("news.csv.gz", b"\x1f\x8b\x08broken", "cannot be read"),
        ("news.parquet", b"PAR1", "Parquet"),
        ("news.txt", b"headline", "neither CSV"),
    ],
)
async def test_a_file_that_cannot_be_read_at_all_is_refused_with_its_name(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=text):
        await read(tmp_path / name)


def test_a_source_is_named_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no news file"):
        open_news(f"file:{tmp_path / 'none.csv'}")
    for spec in ("reuters", "file:", "feed:", "https://x.example/feed"):
        with pytest.raises(UnknownNameError, match="feed:URL"):
            open_news(spec)

"""Results are typed, are what the steps kept, and are read without stopping the loop."""

import asyncio

import msgspec
import pytest

from tests.queries.conftest import Meanwhile
from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.queries.results import BookResult, latest_result, result_of
from tidemill.storage.lake import Lake
from tidemill.study.metrics import engine_metrics, portfolio_metrics
from tidemill.study.study import Study
from tidemill.study.tables import EQUITY
from tidemill.study.workspace import Workspace


@pytest.mark.finished
async def test_every_figure_of_a_book_has_its_name(settings: Settings, experiment: Experiment, lake: Lake) -> None:
    found = await result_of(settings, experiment)
    frame = engine_metrics(lake, found.key)
    assert tuple(frame.columns) == BookResult.__struct_fields__
    assert [msgspec.structs.asdict(book) for book in found.books] == frame.to_dicts()
    for book in found.books:
        totals = lake.manifests(EQUITY, found.key)[book.book].metadata
        assert book.costs == totals["fees"] + totals["slippage"] + totals["borrow"]


@pytest.mark.finished
async def test_the_benchmark_and_the_metrics_are_those_of_the_portfolio(
    settings: Settings, experiment: Experiment, lake: Lake
) -> None:
    found = await result_of(settings, experiment)
    rows = {row.pop("book"): row for row in portfolio_metrics(lake, found.key).to_dicts()}
    assert found.metrics == rows
    same = ("sharpe", "annual_return", "max_drawdown")
    assert {name: getattr(found.benchmark, name) for name in same} == {name: rows["benchmark"][name] for name in same}
    assert found.sentences[0].startswith("After all costs")


def test_a_book_without_its_costs_has_no_total() -> None:
    assert BookResult(book="a", fees=1.0, slippage=None, borrow=0.0).costs is None


@pytest.mark.finished
async def test_the_latest_result_is_that_of_the_report_written_last(settings: Settings, experiment: Experiment) -> None:
    assert await latest_result(settings) == await result_of(settings, experiment)


async def test_what_was_not_run_has_no_result_and_says_what_to_run(settings: Settings, experiment: Experiment) -> None:
    with pytest.raises(InputError, match="tidemill run"):
        await result_of(settings, experiment)
    assert await latest_result(settings) is None


@pytest.mark.finished
async def test_asked_at_once_they_answer_as_alone(settings: Settings, experiment: Experiment) -> None:
    alone = await result_of(settings, experiment), await latest_result(settings)
    assert await asyncio.gather(result_of(settings, experiment), latest_result(settings)) == list(alone)


@pytest.mark.finished
async def test_the_loop_goes_on_while_a_result_is_read(
    settings: Settings, experiment: Experiment, meanwhile: Meanwhile
) -> None:
    assert (await meanwhile(result_of(settings, experiment), Lake, "manifests")).experiment == "small"


@pytest.mark.finished
def test_a_synchronous_door_bridges_in_one_line_also_from_within_a_query(workspace: Workspace, experiment: Experiment) -> None:
    async def twice() -> bool:
        first, second = await asyncio.gather(*(result_of(workspace.settings, experiment) for _ in range(2)))
        return first == second

    assert workspace.call(twice)
    found = workspace.call(result_of, workspace.settings, experiment)
    assert found.key == Study(workspace, experiment, "panel").key

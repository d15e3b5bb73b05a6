"""What a person sees who types `tidemill up` and opens the browser: a real Chromium, the real graph, a run, a blocked run."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from playwright.sync_api import Locator, Page, Route, expect, sync_playwright

from orchestration.run_request import experiment_config
from orchestration.up import free_port
from tests.e2e.conftest import PROJECT, TIDEMILL, Home
from tidemill.domain.ports import RunOutcome
from tidemill.processes import warden

# No contact with anything but the machine itself.
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
PATIENCE = 60_000  # milliseconds; the first page of a busy machine takes long
GROUPS = ("data", "features", "training", "prediction", "trading", "monitoring")


class Up:
    """`tidemill up` in a process of its own, ready."""

    def __init__(self, home: Home) -> None:
        ports = {"TIDEMILL_WEBSERVER_PORT": str(free_port(27_000)), "TIDEMILL_JUPYTER_PORT": str(free_port(28_000))}
        self.process = subprocess.Popen(
            [str(TIDEMILL), "up"],
            env=home.variables(**ports),
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed: list[str] = []

    def wait(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if "Ctrl-C" in line:
                return
        raise AssertionError("up ended:\n" + "".join(self.printed))

    def word(self, after: str) -> str:
        """The word that `up` printed after these."""
        return "".join(self.printed).partition(after)[2].split()[0]

    @property
    def web(self) -> str:
        return self.word("Dagster")

    @property
    def lab(self) -> str:
        return self.word("JupyterLab")


@pytest.fixture(scope="module")
def up(home: Home, blocked: RunOutcome, chromium: str) -> Iterator[Up]:
    """After it nothing may be left: ctrl-C stops all that was started, browsers and kernels still connected or not."""
    started = Up(home)
    try:
        started.wait()
        yield started
        tree = warden.descendants(started.process.pid)
        assert len(tree) >= 8
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(60) == 0
        assert [pid for pid in tree if psutil.pid_exists(pid)] == []
    finally:
        started.process.kill()
        started.process.wait()
        assert started.process.stdout is not None
        started.process.stdout.close()


@pytest.fixture(scope="module")
def page(up: Up, chromium: str) -> Iterator[Page]:
    """A browser's page, signed in by the link that `up` printed."""
    arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        opened = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        opened.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        opened.goto(up.word("sign in"))
        expect(opened.get_by_role("heading", name="Signed in")).to_be_visible()
        opened.wait_for_url(lambda address: "signin" not in address)  # else what is opened next is cut off by the way there
        yield opened
        browser.close()


@pytest.fixture
def visit(up: Up, page: Page) -> Callable[[str], Page]:
    def go(path: str) -> Page:
        page.goto(f"{up.web}{path}", wait_until="domcontentloaded")
        return page

    return go


def width(picture: Locator) -> int:
    """Pixels of a picture that is shown; 0 for one that the browser could not read."""
    expect(picture).to_be_visible()
    return int(picture.evaluate("image => image.decode().then(() => image.naturalWidth)"))


def test_the_first_page_is_dagsters_own_and_offers_the_job(visit: Callable[[str], Page]) -> None:
    page = visit("jobs")
    expect(page.get_by_text("main", exact=True).first).to_be_visible()
    expect(page.get_by_text("Join the Dagster community")).to_have_count(0)


def test_the_asset_graph_shows_the_six_services(visit: Callable[[str], Page]) -> None:
    page = visit("asset-groups")
    for group in GROUPS:
        expect(page.locator("foreignObject").get_by_text(group, exact=True).first).to_be_visible()


@pytest.mark.parametrize(
    ("asset", "texts"),
    [
        ("trading/backtest", ("final equity", "benchmark", "slippage bps", "Parquet")),
        ("market_data/bars", ("panel.1d", "2021-01-04 00:00 to 2021-11-29 00:00", "Postgres", "2021-11")),
    ],
)
def test_a_materialization_shows_its_figures_and_its_plot(
    visit: Callable[[str], Page], asset: str, texts: tuple[str, ...]
) -> None:
    page = visit(f"assets/{asset}")
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible()
    page.get_by_role("row").filter(has_text="plot").get_by_text("[Show Markdown]").click()
    assert width(page.get_by_alt_text("plot", exact=True)) > 400
    page.keyboard.press("Escape")


def test_a_failed_check_says_what_does_not_hold_and_that_it_blocks(visit: Callable[[str], Page], blocked: RunOutcome) -> None:
    page = visit("assets/market_data/bars?view=checks&checkDetail=high_is_highest")
    expect(page.get_by_text("“No price is above the high” does not hold in 1 row.").first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text("blocking").first).to_be_visible()
    expect(page.get_by_text("data_docs").first).to_be_visible()


def test_the_blocked_run_is_a_failure_that_made_only_the_bars(visit: Callable[[str], Page], blocked: RunOutcome) -> None:
    page = visit(f"runs/{blocked.run_id}")
    expect(page.get_by_text("Failure", exact=True).first).to_be_visible()
    page = visit("runs")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    expect(page.get_by_text("small").first).to_be_visible()


@pytest.fixture
def executed_notebook(home: Home, up: Up, tmp_path: Path) -> None:
    """`explore_results`, made as its asset on the results of the experiment, by its service alone."""
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(experiment_config(home.experiment)))
    asset = [
        "asset",
        "materialize",
        "--select",
        "key:notebooks/explore_results",
        "--module-name",
        "assets.performance.definitions",
        "--attribute",
        "defs",
    ]
    made = subprocess.run(
        [str(TIDEMILL), "dagster", *asset, "--config", str(config)],
        env=home.variables(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert made.returncode == 0, made.stderr


def test_an_executed_notebook_opens_from_its_asset(executed_notebook: None, visit: Callable[[str], Page]) -> None:
    page = visit("assets/notebooks/explore_results")
    with page.context.expect_page() as opened:
        page.get_by_role("row").filter(has_text="notebook").get_by_text("/notebooks/").first.click()
    expect(opened.value.get_by_text("After all costs the ensemble portfolio")).to_be_visible()
    assert width(opened.value.locator("img").first) > 400
    opened.value.close()


def keep_as_stored(route: Route) -> None:
    """Nothing that JupyterLab saves reaches the repository."""
    if route.request.method == "POST":  # a checkpoint, when a notebook is opened
        route.fulfill(status=201, json={"id": "checkpoint", "last_modified": "2026-01-01T00:00:00Z"})
    elif route.request.method in ("PUT", "PATCH"):
        route.abort()
    else:
        route.continue_()


def test_jupyterlab_runs_the_notebook(up: Up, page: Page, home: Home) -> None:
    tab = page.context.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.route("**/api/contents/**", keep_as_stored)
    tab.goto(up.lab.replace("/lab?", "/lab/tree/notebooks/explore_results.ipynb?"))
    expect(tab.get_by_text("Python 3 (ipykernel)").first).to_be_visible()
    expect(tab.locator(".jp-Spinner")).to_have_count(0)
    tab.locator(".jp-CodeCell").first.locator(".cm-content").click()
    tab.keyboard.press("Control+a")
    tab.keyboard.insert_text(f'experiment = "{home.file}"')
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(tab.get_by_text("After all costs the ensemble portfolio")).to_be_visible()
    pictures = tab.locator(".jp-OutputArea-output img")
    expect(pictures).to_have_count(5)
    assert width(pictures.first) > 400
    tab.close()

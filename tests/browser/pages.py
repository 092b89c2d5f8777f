"""The pages of MLflow and TensorBoard in a real browser, driven and read as a user does."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, ViewportSize

_Reading = TypeVar("_Reading")

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
_FLAGS = [
    "--no-sandbox",  # as root it refuses to start otherwise
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
#: MLflow's page for training instead of the one for language models, and its assistant's panel closed.
_MLFLOW_LOCAL_STORAGE = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
#: Large: columns and charts out of sight are not made.
SIZE: ViewportSize = {"width": 2400, "height": 2000}
_TIMEOUT_MS = 20_000  # milliseconds
#: All texts of an element, those within web components too.
_TEXTS = """element => {
    const texts = [], hidden = ["STYLE", "SCRIPT", "TEMPLATE"];
    const walk = node => {
        if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) texts.push(node.textContent.trim());
        if (hidden.includes(node.tagName)) return;
        if (node.shadowRoot) node.shadowRoot.childNodes.forEach(walk);
        node.childNodes.forEach(walk);
    };
    walk(element);
    return texts;
}"""
#: The names of a chart's lines, each with its points.
_SERIES = """chart => Object.entries(chart._chart.name2datasets).map(
    ([name, dataset]) => [name, dataset.data().map(point => [point.step, point.scalar])])"""


def find_missing_requirement() -> str | None:
    """Why there can be no browser; None if there can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return None if Path(CHROMIUM).exists() else f"{CHROMIUM} is not there: apt-get install chromium"


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """An empty page in a browser that reaches this machine alone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            context = browser.new_context(viewport=SIZE)
            context.set_default_timeout(_TIMEOUT_MS)
            for key, value in _MLFLOW_LOCAL_STORAGE.items():
                context.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
            yield context.new_page()
        finally:
            browser.close()


def wait_until_stable(page: Page, read: Callable[[], _Reading]) -> _Reading:
    """What is current once it does not change any more: pages are drawn bit by bit, as the answers to them come."""
    current = read()
    for _ in range(40):
        page.wait_for_timeout(500)
        previous, current = current, read()
        if current == previous:
            return current
    raise TimeoutError(f"it changes all the time: {previous!r}, then {current!r}")


@contextlib.contextmanager
def tensorboard(folder: Path, runs: int) -> Iterator[str]:
    """A TensorBoard that has read a folder with so many finished runs; its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast", "auto" if importlib.util.find_spec("tensorboard_data_server") else "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder.parent)
    assert server.stderr
    try:
        match = next(filter(None, (re.search(r"at (http://\S+?)/? ", line) for line in server.stderr)), None)
        if match is None:
            raise RuntimeError(f"TensorBoard ended with {server.wait()}")
        deadline = time.monotonic() + 60
        while _count_finished_runs(match[1]) < runs and time.monotonic() < deadline:
            time.sleep(0.2)
        yield match[1]
    finally:
        server.terminate()
        server.communicate(timeout=20)


def _count_finished_runs(uri: str) -> int:
    """How many runs a TensorBoard has read up to their ends, which are the last that stands in their files."""
    query = {"startIndex": 0, "sliceSize": 99, "allowedStatuses": ["STATUS_SUCCESS"], "colParams": []}
    request = urllib.request.Request(f"{uri}/data/plugin/hparams/session_groups", json.dumps(query).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return len(json.load(answer).get("sessionGroups", []))
    except urllib.error.HTTPError:  # before it has read anything
        return 0


class MLflowPage:
    """MLflow's pages.

    Args:
        page: The browser's page.
        uri: The server.
        experiment: The experiment's id.
    """

    def __init__(self, page: Page, uri: str, experiment: str) -> None:
        self.page = page
        self._experiment = f"{uri}/#/experiments/{experiment}"

    def list_runs(self, columns: list[str]) -> tuple[list[dict[str, str]], list[str]]:
        """Open the list of runs.

        Args:
            columns: The columns to show besides those that always are; a group's name for all of it.

        Returns:
            The cells of each run by column, and the statuses that the page was told.
        """
        with self.page.expect_response(re.compile("/runs/search")) as answer:
            self.page.goto(f"{self._experiment}/runs")
        runs_response = json.loads(answer.value.text())["runs"]
        self.toggle_columns(["Dataset", "Source", "Models", *columns])  # the first three are shown at first
        self.page.locator("[role=gridcell][col-id^=params]").first.wait_for()
        return self._read_cells("[row-index]"), [run["info"]["status"] for run in runs_response]

    def toggle_columns(self, columns: list[str]) -> None:
        """Show columns of an open list that are hidden, and hide those that are shown."""
        self.page.get_by_role("button", name="Columns", exact=True).click()
        for column in columns:
            node = self.page.locator(".du-bois-light-tree-treenode").filter(has_text=re.compile(rf"^\s*{column}"))
            node.locator("[class*=tree-checkbox]").first.click()
        self.page.keyboard.press("Escape")

    def open_run(self, run_id: str) -> dict[str, str]:
        """Open a run's overview; returns its two-column tables: details, metrics and params."""
        self.page.goto(f"{self._experiment}/runs/{run_id}")
        self.page.get_by_text("About this run").wait_for()
        self.page.get_by_text("Logged models (").wait_for()
        self.page.locator("[role=gridcell][col-id=name]").first.wait_for()
        script = """() => [...document.querySelectorAll("[role=row]")].map(
            row => [...row.querySelectorAll("[role=cell]")].map(cell => cell.innerText.trim()))"""
        rows = wait_until_stable(self.page, lambda: self.page.evaluate(script))
        return {row[0]: row[1] for row in rows if len(row) > 1}

    def read_outputs(self) -> dict[str, str]:
        """The steps of the checkpoints that an open overview lists, by name."""
        rows = self._read_cells("[row-index]")
        return {row["name"]: row["step"] for row in rows if "snapshot" in row.get("name", "")}

    def list_checkpoints(self) -> list[dict[str, str]]:
        """Open the experiment's list of models; returns their cells by column."""
        self.page.goto(f"{self._experiment}/models")
        self.page.locator("[role=gridcell][col-id=name]").first.wait_for()
        return self._read_cells("[row-index]")

    def open_charts(self, run_id: str) -> None:
        """Open the metric charts of a run."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/model-metrics")
        self.page.locator(".js-plotly-plot").first.wait_for()

    def read_curve(self, key: str) -> list[tuple[int, float]]:
        """The points that the chart of a metric draws."""
        section, _, title = key.rpartition("/")
        card = self._find_card(section, title)
        plot = card.locator(".js-plotly-plot")
        plot.locator(".scatterlayer .trace").first.wait_for(state="attached")
        script = "plot => plot.data.map(trace_data => [Array.from(trace_data.x), Array.from(trace_data.y)])"
        traces = wait_until_stable(self.page, lambda: plot.evaluate(script))
        # The same curve as it is and smoothed; MLflow does not smooth by default.
        assert all(trace == traces[0] for trace in traces), traces
        return list(zip(*traces[0], strict=True))

    def show_picture(self, key: str, step: int) -> tuple[int, int]:
        """Move a picture's slider to a step; returns the shown picture's width and height."""
        card = self._find_card(key.rpartition("/")[0], key)
        box = card.get_by_role("spinbutton")
        box.fill(str(step))
        box.evaluate("box => box.blur()")
        return _read_size(card.locator(f"img[src*='step%2B{step}%2B']"))

    def open_artifact(self, run_id: str, path: str) -> tuple[int, int]:
        """Open a picture among the artifacts of a run; returns its width and height."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/artifacts")
        for part in path.split("/"):
            self.page.get_by_text(part, exact=True).first.click()
        return _read_size(self.page.locator("img[src^='blob:']").first)

    def _find_card(self, section: str, title: str) -> Locator:
        section_locator = self.page.locator(".du-bois-light-collapse-item").filter(
            has=self.page.locator(".du-bois-light-collapse-header").filter(has_text=re.compile(rf"^\s*{section}\s*\("))
        )
        card = section_locator.get_by_test_id("experiment-view-compare-runs-card")
        return card.filter(has=self.page.get_by_text(title, exact=True)).first

    def _read_cells(self, rows: str) -> list[dict[str, str]]:
        """The cells of a grid, whose rows are each made of a part that stays and a part that scrolls."""
        script = """rows => {
            const cells = {};
            for (const row of document.querySelectorAll(rows))
                for (const cell of row.querySelectorAll("[role=gridcell]"))
                    (cells[row.getAttribute("row-index")] ??= {})[cell.getAttribute("col-id")]
                        = cell.innerText.trim().split("\\n").pop();  // before a name stands its colour
            return cells;
        }"""
        cells: dict[str, dict[str, str]] = wait_until_stable(self.page, lambda: self.page.evaluate(script, rows))
        return [cells[index] for index in sorted(cells, key=int)]


class TensorBoardPage:
    """TensorBoard's pages.

    Args:
        page: The browser's page.
        uri: The server.
    """

    def __init__(self, page: Page, uri: str) -> None:
        self.page = page
        self._uri = uri

    def open_scalars(self) -> dict[str, list[str]]:
        """Open the scalars; returns the tags of each group."""
        self._open("scalars", "tf-scalar-card")
        wait_until_stable(self.page, self.page.locator("tf-category-paginated-view:has(.category-name)").count)
        groups = {}
        for group in self.page.locator("tf-category-paginated-view:has(.category-name)").all():
            name = group.locator(".category-name").inner_text()
            if not group.locator("tf-scalar-card").count():
                group.locator("button.heading").click()  # TensorBoard opens the first groups by itself
            group.locator("tf-scalar-card path.line").first.wait_for(state="attached")
            groups[name] = [card.evaluate("card => card.tag") for card in group.locator("tf-scalar-card").all()]
        return groups

    def read_curves(self, tag: str) -> dict[str, list[tuple[int, float]]]:
        """The points that the chart of a tag draws, by run; the scalars are open."""
        for card in self.page.locator("tf-scalar-card").all():
            if card.evaluate("card => card.tag") == tag:
                chart = card.locator("vz-line-chart2")
                series = wait_until_stable(self.page, functools.partial(chart.evaluate, _SERIES))
                return {json.loads(name)[-1]: [(step, value) for step, value in points] for name, points in series}
        raise LookupError(tag)

    def collapse(self, group: str) -> None:
        """Close a group of an open page."""
        self.page.locator("button.heading").filter(has_text=group).first.click()

    def open_layout(self) -> dict[str, list[str]]:
        """Open the custom scalars; returns the series drawn in each chart."""
        self._open("custom_scalars", "tf-custom-scalar-multi-line-chart-card")
        charts = {}
        for card in self.page.locator("tf-custom-scalar-multi-line-chart-card").all():
            card.locator("path.line").first.wait_for(state="attached")
            texts = wait_until_stable(self.page, functools.partial(card.evaluate, _TEXTS))
            charts[texts[0]] = sorted(text for text in texts if text.endswith(")") and "Matches" not in text)
        return charts

    def open_images(self) -> list[tuple[str, int, tuple[int, int]]]:
        """Open the images; returns tag, step and size of each that is shown."""
        self._open("images", "tf-image-loader img")
        wait_until_stable(self.page, self.page.locator("tf-image-loader img").count)
        cards = [(card, card.evaluate(_TEXTS)) for card in self.page.locator("tf-image-loader").all()]
        return [
            (texts[0], int(texts[texts.index("step") + 1]), _read_size(card.locator("img"))) for card, texts in cards
        ]

    def open_histograms(self) -> dict[str, int]:
        """Open the histograms; returns how many are drawn for each tag that is in sight."""
        self._open("histograms", "tf-histogram-loader path")
        wait_until_stable(self.page, self.page.locator("tf-histogram-loader").count)
        drawn = {}
        for card in self.page.locator("tf-histogram-loader").all():
            histograms = card.locator("vz-histogram-timeseries g.histogram")
            histograms.first.wait_for(state="attached")  # each card fetches its own
            drawn[card.evaluate(_TEXTS)[0]] = histograms.count()
        return drawn

    def open_hparams(self) -> tuple[list[str], list[str]]:
        """Open the hyperparameters; returns the texts of the table, and the statuses that the page was told."""
        with self.page.expect_response(re.compile("hparams/session_groups")) as answer:
            self._open("hparams", "tf-hparams-table-view vaadin-grid-cell-content")
        groups = json.loads(answer.value.text())["sessionGroups"]
        table = self.page.locator("tf-hparams-table-view")
        for group in groups:
            table.get_by_text(group["name"]).first.wait_for(state="attached")
        texts = wait_until_stable(self.page, lambda: table.evaluate(_TEXTS))
        return texts, [session["status"] for group in groups for session in group["sessions"]]

    def open_texts(self) -> dict[str, str]:
        """Open the texts; returns them by tag."""
        self._open("text", "tf-text-loader")
        all_texts = wait_until_stable(self.page, lambda: self._read_texts("tf-text-loader"))
        return {texts[0]: " ".join(texts[1:]) for texts in all_texts}

    def _open(self, tab: str, selector: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{self._uri}/#{tab}")
        self.page.locator(selector).first.wait_for(state="attached")

    def _read_texts(self, selector: str) -> list[list[str]]:
        return [element.evaluate(_TEXTS) for element in self.page.locator(selector).all()]


def _read_size(image: Locator) -> tuple[int, int]:
    """Width and height in pixels of a picture that is shown."""
    image.wait_for()
    width, height = image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    return width, height

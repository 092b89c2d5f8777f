"""MLflow and TensorBoard pages, driven and read in a real browser."""

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
    "--no-sandbox",  # Chromium refuses to start as root otherwise.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
#: Selects MLflow's pages for model training and keeps the panel of its assistant closed.
_MLFLOW_LOCAL_STORAGE = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
#: Large, because the pages do not render columns and charts outside of the viewport.
SIZE: ViewportSize = {"width": 2400, "height": 2000}
_TIMEOUT_MS = 20_000
#: Returns all texts of an element, including those within web components.
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
#: Returns the names of the lines of a chart with their points.
_SERIES = """chart => Object.entries(chart._chart.name2datasets).map(
    ([name, dataset]) => [name, dataset.data().map(point => [point.step, point.scalar])])"""


def find_missing_requirement() -> str | None:
    """Return a message if a requirement is missing, or None if the browser can run."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed. Run: pip install playwright"
    return None if Path(CHROMIUM).exists() else f"{CHROMIUM} does not exist. Run: apt-get install chromium"


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """Open an empty page in a browser that can reach only 127.0.0.1."""
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
    """Read repeatedly until two consecutive results are equal, because pages are rendered in steps."""
    current = read()
    for _ in range(40):
        page.wait_for_timeout(500)
        previous, current = current, read()
        if current == previous:
            return current
    raise TimeoutError(f"The page still changes after 20 s: {previous!r}, then {current!r}")


@contextlib.contextmanager
def tensorboard(folder: Path, runs: int) -> Iterator[str]:
    """Run TensorBoard until it has loaded ``runs`` finished runs, and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast", "auto" if importlib.util.find_spec("tensorboard_data_server") else "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder.parent)
    assert server.stderr
    try:
        match = next(filter(None, (re.search(r"at (http://\S+?)/? ", line) for line in server.stderr)), None)
        if match is None:
            raise RuntimeError(f"TensorBoard exited with status {server.wait()} before it printed its address.")
        deadline = time.monotonic() + 60
        while _count_finished_runs(match[1]) < runs and time.monotonic() < deadline:
            time.sleep(0.2)
        yield match[1]
    finally:
        server.terminate()
        server.communicate(timeout=20)


def _count_finished_runs(uri: str) -> int:
    """Return the number of completely loaded runs. The status is the last record of an event file."""
    query = {"startIndex": 0, "sliceSize": 99, "allowedStatuses": ["STATUS_SUCCESS"], "colParams": []}
    request = urllib.request.Request(f"{uri}/data/plugin/hparams/session_groups", json.dumps(query).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return len(json.load(response).get("sessionGroups", []))
    except urllib.error.HTTPError:  # TensorBoard has not loaded any run yet.
        return 0


class MLflowPage:
    """MLflow pages of one experiment.

    Args:
        page: Page of the browser.
        uri: Address of the server.
        experiment: ID of the experiment.
    """

    def __init__(self, page: Page, uri: str, experiment: str) -> None:
        self.page = page
        self._experiment = f"{uri}/#/experiments/{experiment}"

    def list_runs(self, columns: list[str]) -> tuple[list[dict[str, str]], list[str]]:
        """Open the list of runs.

        Args:
            columns: Columns to show in addition to the permanent ones. The name of a group shows all its columns.

        Returns:
            Cells of each run by column, and statuses that the page received.
        """
        with self.page.expect_response(re.compile("/runs/search")) as response:
            self.page.goto(f"{self._experiment}/runs")
        runs_response = json.loads(response.value.text())["runs"]
        # Hide the first three, which are shown by default.
        self.toggle_columns(["Dataset", "Source", "Models", *columns])
        self.page.locator("[role=gridcell][col-id^=params]").first.wait_for()
        return self._read_cells("[row-index]"), [run["info"]["status"] for run in runs_response]

    def toggle_columns(self, columns: list[str]) -> None:
        """Show hidden columns and hide visible columns of the open list."""
        self.page.get_by_role("button", name="Columns", exact=True).click()
        for column in columns:
            node = self.page.locator(".du-bois-light-tree-treenode").filter(has_text=re.compile(rf"^\s*{column}"))
            node.locator("[class*=tree-checkbox]").first.click()
        self.page.keyboard.press("Escape")

    def open_run(self, run_id: str) -> dict[str, str]:
        """Open the overview of a run, and return its details, metrics and parameters."""
        self.page.goto(f"{self._experiment}/runs/{run_id}")
        self.page.get_by_text("About this run").wait_for()
        self.page.get_by_text("Logged models (").wait_for()
        self.page.locator("[role=gridcell][col-id=name]").first.wait_for()
        script = """() => [...document.querySelectorAll("[role=row]")].map(
            row => [...row.querySelectorAll("[role=cell]")].map(cell => cell.innerText.trim()))"""
        rows = wait_until_stable(self.page, lambda: self.page.evaluate(script))
        return {row[0]: row[1] for row in rows if len(row) > 1}

    def read_outputs(self) -> dict[str, str]:
        """Return the steps of the checkpoints in the open overview, by name."""
        rows = self._read_cells("[row-index]")
        return {row["name"]: row["step"] for row in rows if "snapshot" in row.get("name", "")}

    def list_checkpoints(self) -> list[dict[str, str]]:
        """Open the list of models of the experiment, and return their cells by column."""
        self.page.goto(f"{self._experiment}/models")
        self.page.locator("[role=gridcell][col-id=name]").first.wait_for()
        return self._read_cells("[row-index]")

    def open_charts(self, run_id: str) -> None:
        """Open the metric charts of a run."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/model-metrics")
        self.page.locator(".js-plotly-plot").first.wait_for()

    def open_system_metrics(self, run_id: str) -> list[str]:
        """Open the system metrics of a run, and return the titles of the charts."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/system-metrics")
        self.page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(state="attached", timeout=90_000)
        cards = self.page.get_by_test_id("experiment-view-compare-runs-card")
        titles = wait_until_stable(self.page, cards.all_inner_texts)
        return [title.strip().split("\n")[0] for title in titles]

    def read_curve(self, key: str) -> list[tuple[int, float]]:
        """Return the points in the chart of a metric."""
        section, _, title = key.rpartition("/")
        card = self._find_card(section, title)
        plot = card.locator(".js-plotly-plot")
        plot.locator(".scatterlayer .trace").first.wait_for(state="attached")
        script = "plot => plot.data.map(trace_data => [Array.from(trace_data.x), Array.from(trace_data.y)])"
        traces = wait_until_stable(self.page, lambda: plot.evaluate(script))
        # MLflow draws the original and the smoothed curve. They are equal, because smoothing is off by default.
        assert all(trace == traces[0] for trace in traces), traces
        return list(zip(*traces[0], strict=True))

    def show_picture(self, key: str, step: int) -> tuple[int, int]:
        """Move the slider of a picture to a step, and return the width and height of the displayed picture."""
        card = self._find_card(key.rpartition("/")[0], key)
        box = card.get_by_role("spinbutton")
        box.fill(str(step))
        box.evaluate("box => box.blur()")
        return _read_size(card.locator(f"img[src*='step%2B{step}%2B']"))

    def open_artifact(self, run_id: str, path: str) -> tuple[int, int]:
        """Open a picture among the artifacts of a run, and return its width and height."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/artifacts")
        for part in path.split("/"):
            self.page.get_by_text(part, exact=True).first.click()
        return _read_size(self.page.locator("img[src^='blob:']").first)

    def open_table(self, run_id: str, path: str) -> str:
        """Open a table among the artifacts of a run, and return its text."""
        self.page.goto(f"{self._experiment}/runs/{run_id}/artifacts")
        for part in path.split("/"):
            self.page.get_by_text(part, exact=True).first.click()
        table = self.page.get_by_role("table").first
        table.wait_for()
        return wait_until_stable(self.page, table.inner_text)

    def _find_card(self, section: str, title: str) -> Locator:
        section_locator = self.page.locator(".du-bois-light-collapse-item").filter(
            has=self.page.locator(".du-bois-light-collapse-header").filter(has_text=re.compile(rf"^\s*{section}\s*\("))
        )
        card = section_locator.get_by_test_id("experiment-view-compare-runs-card")
        return card.filter(has=self.page.get_by_text(title, exact=True)).first

    def _read_cells(self, rows: str) -> list[dict[str, str]]:
        """Return the cells of a grid. Each row consists of a fixed part and a scrolling part."""
        script = """rows => {
            const cells = {};
            for (const row of document.querySelectorAll(rows))
                for (const cell of row.querySelectorAll("[role=gridcell]"))
                    (cells[row.getAttribute("row-index")] ??= {})[cell.getAttribute("col-id")]
                        = cell.innerText.trim().split("\\n").pop();  // A color marker precedes the name.
            return cells;
        }"""
        cells: dict[str, dict[str, str]] = wait_until_stable(self.page, lambda: self.page.evaluate(script, rows))
        return [cells[index] for index in sorted(cells, key=int)]


class TensorBoardPage:
    """TensorBoard pages.

    Args:
        page: Page of the browser.
        uri: Address of the server.
    """

    def __init__(self, page: Page, uri: str) -> None:
        self.page = page
        self._uri = uri

    def open_scalars(self) -> dict[str, list[str]]:
        """Open the scalars, and return the tags of each group."""
        self._open("scalars", "tf-scalar-card")
        wait_until_stable(self.page, self.page.locator("tf-category-paginated-view:has(.category-name)").count)
        groups = {}
        for group in self.page.locator("tf-category-paginated-view:has(.category-name)").all():
            name = group.locator(".category-name").inner_text()
            if not group.locator("tf-scalar-card").count():
                group.locator("button.heading").click()  # TensorBoard expands the first groups only.
            group.locator("tf-scalar-card path.line").first.wait_for(state="attached")
            groups[name] = [card.evaluate("card => card.tag") for card in group.locator("tf-scalar-card").all()]
        return groups

    def read_curves(self, tag: str) -> dict[str, list[tuple[int, float]]]:
        """Return the points in the chart of a tag, by run. The scalars must be open."""
        for card in self.page.locator("tf-scalar-card").all():
            if card.evaluate("card => card.tag") == tag:
                chart = card.locator("vz-line-chart2")
                series = wait_until_stable(self.page, functools.partial(chart.evaluate, _SERIES))
                return {json.loads(name)[-1]: [(step, value) for step, value in points] for name, points in series}
        raise LookupError(tag)

    def collapse(self, group: str) -> None:
        """Collapse a group of the open page."""
        self.page.locator("button.heading").filter(has_text=group).first.click()

    def open_layout(self) -> dict[str, list[str]]:
        """Open the custom scalars, and return the series in each chart."""
        self._open("custom_scalars", "tf-custom-scalar-multi-line-chart-card")
        charts = {}
        for card in self.page.locator("tf-custom-scalar-multi-line-chart-card").all():
            card.locator("path.line").first.wait_for(state="attached")
            texts = wait_until_stable(self.page, functools.partial(card.evaluate, _TEXTS))
            charts[texts[0]] = sorted(text for text in texts if text.endswith(")") and "Matches" not in text)
        return charts

    def open_images(self) -> list[tuple[str, int, tuple[int, int]]]:
        """Open the images, and return the tag, step and size of each."""
        self._open("images", "tf-image-loader img")
        wait_until_stable(self.page, self.page.locator("tf-image-loader img").count)
        cards = [(card, card.evaluate(_TEXTS)) for card in self.page.locator("tf-image-loader").all()]
        return [
            (texts[0], int(texts[texts.index("step") + 1]), _read_size(card.locator("img"))) for card, texts in cards
        ]

    def open_histograms(self) -> dict[str, int]:
        """Open the histograms, and return their number for each visible tag."""
        self._open("histograms", "tf-histogram-loader path")
        wait_until_stable(self.page, self.page.locator("tf-histogram-loader").count)
        drawn = {}
        for card in self.page.locator("tf-histogram-loader").all():
            histograms = card.locator("vz-histogram-timeseries g.histogram")
            histograms.first.wait_for(state="attached")  # Each card loads its data separately.
            drawn[card.evaluate(_TEXTS)[0]] = histograms.count()
        return drawn

    def open_hparams(self) -> tuple[list[str], list[str]]:
        """Open the hyperparameters, and return the texts of the table and the statuses that the page received."""
        with self.page.expect_response(re.compile("hparams/session_groups")) as response:
            self._open("hparams", "tf-hparams-table-view vaadin-grid-cell-content")
        groups = json.loads(response.value.text())["sessionGroups"]
        table = self.page.locator("tf-hparams-table-view")
        for group in groups:
            table.get_by_text(group["name"]).first.wait_for(state="attached")
        texts = wait_until_stable(self.page, lambda: table.evaluate(_TEXTS))
        return texts, [session["status"] for group in groups for session in group["sessions"]]

    def open_sounds(self) -> list[str]:
        """Open the sounds, and return the tag of each player."""
        self._open("audio", "tf-audio-loader audio")
        player = self.page.locator("tf-audio-loader audio").first
        wait_until_stable(self.page, lambda: player.evaluate("audio => audio.readyState"))
        return [element.evaluate(_TEXTS)[0] for element in self.page.locator("tf-audio-loader").all()]

    def open_texts(self) -> dict[str, str]:
        """Open the texts, and return them by tag."""
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
    """Return the width and height of a displayed picture in pixels."""
    image.wait_for()
    width, height = image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    return width, height

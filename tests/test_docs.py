"""Code, commands, links and pictures of the documentation."""

from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.core import TyperGroup

import pte_tracking
from pte_tracking import sinks
from pte_tracking._cli import app
from pte_tracking._delivery.hidden_kinds import name_kind
from pte_tracking.sinks import ENTRY_POINT_GROUP, EventKind, find_display, get_sink
from tests import servers

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


BACKEND = DOCS.parent / "examples" / "pte_sqlite"

TRAIN = """
import os, signal, sys
import pte_tracking as pte
run = pte.Run("result", sinks=["json", "sqlite"], params={"lr": 0.1})
for step in (1, 2):
    run.log_metrics({"loss": step / 4}, step)
position = run.position(2)
run.log_metrics({"loss": -1.0}, 3)
run.close()
rewound = pte.Run("result", sinks=["json", "sqlite"])
rewound.open(position)
rewound.rewind()
rewound.log_metrics({"loss": 0.75}, 3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_backend_guide_matches_example_files() -> None:
    for language, names in {"python": ["pte_sqlite.py", "test_pte_sqlite.py"], "toml": ["pyproject.toml"]}.items():
        assert blocks("write-a-backend.md", language) == [(BACKEND / name).read_text() for name in names]
    assert len((BACKEND / "pte_sqlite.py").read_text().splitlines()) <= 75


@pytest.mark.slow
def test_example_backend_installs_passes_contract_and_delivers_run(tmp_path: Path) -> None:
    shutil.copytree(BACKEND, tmp_path / "source")
    target = tmp_path / "installed"
    # Without build isolation, pip uses the installed hatchling and downloads nothing.
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), "./source"]
    env = {**os.environ, "PYTHONPATH": str(target)}

    def run(*words: str, status: int = 0, folder: Path = tmp_path) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    run("-m", *install)
    # In the checkout, whose configuration of pytest requires plugins, as the page says.
    report = run("-B", "-m", "pytest", "-p", "no:cacheprovider", folder=BACKEND)
    assert re.search(r"\d+ passed", report)
    assert f"rootdir: {BACKEND}\nconfigfile: pyproject.toml\n" in report
    run("-c", TRAIN, status=-signal.SIGKILL)
    assert "result: all events delivered" in run("-m", "pte_tracking._cli", "sync", "result")
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        assert database.execute("SELECT key, step, value FROM points ORDER BY step").fetchall() == [
            ("loss", 1, 0.25),
            ("loss", 2, 0.5),
            ("loss", 3, 0.75),
        ]
        assert database.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]
        assert database.execute("SELECT key, value FROM params").fetchall() == [("lr", 0.1)]


#: Imports and objects that the code on the pages assumes.
PREAMBLE = """
import warnings
import torch
from torch import nn
from torch.nn import functional as F
import pte_tracking as pte
from pte_tracking import extensions

torch.set_num_threads(1)
torch.manual_seed(0)
inputs = torch.randn(128, 8)
data = torch.utils.data.TensorDataset(inputs, (inputs.sum(1) > 0).long())
loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
val_loader = torch.utils.data.DataLoader(data, batch_size=64)
model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
"""
#: The code of this page is a package, which test_example_backend_installs_passes_contract_and_delivers_run installs.
NOT_RUN = {"write-a-backend.md"}
PAGES = sorted(path.name for path in DOCS.glob("*.md") if blocks(path.name) and path.name not in NOT_RUN)


def run_page(script: str, folder: Path) -> str:
    env = {**os.environ, **servers.MLFLOW_ENVIRONMENT, "PTE_TRACKING_PROVENANCE": "full"}
    command = [sys.executable, "-W", "ignore", "-c", PREAMBLE + script]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_page_code_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    run_page("\n".join(blocks(page)), tmp_path)


@pytest.mark.slow
def test_readme_code_runs_and_resumes_in_empty_directory(tmp_path: Path) -> None:
    script, _ = blocks("../README.md")
    assert len(script.splitlines()) <= 40
    (tmp_path / "example.py").write_text(script)
    env = {**os.environ, **servers.MLFLOW_ENVIRONMENT, "PTE_TRACKING_PROVENANCE": "full"}
    outputs = []
    for _ in range(2):
        command = [sys.executable, "example.py"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout.splitlines())
    assert len(outputs[0]) >= 6  # header and one row per epoch
    assert (tmp_path / "result" / "log").exists()
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_readme_extensions_that_keep_the_best_snapshot_replace_the_defaults(tmp_path: Path) -> None:
    script, listed = blocks("../README.md")
    script = script.replace("manager = ", f"{listed}manager = ").replace("extensions.defaults()", "training_extensions")
    assert "step=" in run_page(f'{script}\nprint(pte.load("result", "best", models=model))', tmp_path)


def test_architecture_page_names_existing_files() -> None:
    root = DOCS.parent
    names = re.findall(r"`([\w/]+\.py)`", (DOCS / "architecture.md").read_text())
    assert len(names) > 30
    folders = (root / "pte_tracking", root / "backends" / "pte_backends")
    assert [name for name in names if not any((folder / name).is_file() for folder in folders)] == []


DOCUMENTS = sorted(
    path
    for folder in ("", "docs", "docs/reference", "examples")
    for path in (DOCS.parent / folder).glob("*.md")
    if path.is_file()
)


def strip_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the link fragments that GitHub and MyST generate for the headings of a page."""
    text = strip_code(path.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    generated = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return generated | set(re.findall(r'<a id="(.*?)"></a>', text))


def test_resume_page_names_existing_tests() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", (DOCS / "resume.md").read_text())
    assert len(names) > 5
    assert [name for name in names if f"def {name}(" not in tests] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_links_resolve(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", strip_code(document.read_text())):
        if re.match(r"\w+:", link):
            continue
        link_path, _, anchor = link.partition("#")
        target = document.parent / link_path if link_path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_pictures_are_used_small_and_have_alt_text() -> None:
    shown = [picture for document in DOCUMENTS for picture in re.findall(r"!\[(.*?)\]\((.*?)\)", document.read_text())]
    assert all(len(words) > 10 for words, _ in shown)
    pictures = sorted((DOCS / "pictures").iterdir())
    assert sorted({Path(link_path).name for _, link_path in shown}) == [path.name for path in pictures]
    assert {path.name: size for path in pictures if (size := path.stat().st_size) > 80_000} == {}


def test_extensions_page_mentions_every_extension() -> None:
    page = (DOCS / "extensions.md").read_text()
    missing = [name for name in pte_tracking.extensions.__all__ if f"`{name}" not in page]
    assert not missing, f"docs/extensions.md does not mention {', '.join(missing)}. Add a section or a row."


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def test_reporting_page_mentions_every_trigger() -> None:
    page = (DOCS / "reporting.md").read_text()
    missing = [name for name in pte_tracking.triggers.__all__ if name.endswith("Trigger") and f"{name}(" not in page]
    assert not missing, f"docs/reporting.md does not mention {', '.join(missing)}. Add a row to the table of triggers."


def test_backends_page_lists_every_backend() -> None:
    (table,) = re.findall(r"^\| Name \|.*\n(?:\|.*\n)+", (DOCS / "backends.md").read_text(), re.MULTILINE)
    names = distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names
    missing = [name for name in sorted(names) if f"| `{name}` |" not in table]
    assert not missing, f"The first table in docs/backends.md does not list {', '.join(missing)}. Add a row for each."


def test_backends_page_shows_kinds_of_events_as_declared() -> None:
    (table,) = re.findall(r"^\| Kind \|.*\n(?:\|.*\n)+", (DOCS / "backends.md").read_text(), re.MULTILINE)
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert [row[0] for row in rows] == [capitalize(name_kind(kind)) for kind in get_args(EventKind)]
    for name in distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names:
        shows = get_sink(name).shows
        assert shows is not None, name
        assert f"`{name}`" in header, f"The table in docs/backends.md has no column `{name}`. Add it."
        column = header.index(f"`{name}`")
        assert [row[column] for row in rows] == [find_display(shows, kind) or "-" for kind in get_args(EventKind)], name


def commands(text: str) -> list[str]:
    """Return the commands in console blocks and inline code, except those with placeholders."""
    typed = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in typed for line in block.splitlines()]
    within = re.findall(r"`([^`\n]+)`", strip_code(text))
    return [line for line in lines + within if not re.search(r"\.\.\.|\||COMMAND|NAME", line)]


def nox_sessions() -> set[str]:
    text = (DOCS.parent / "noxfile.py").read_text()
    return set(re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", text, re.MULTILINE))


def test_contributing_table_lists_every_nox_session() -> None:
    text = (DOCS.parent / "CONTRIBUTING.md").read_text()
    missing = sorted(nox_sessions() - set(re.findall(r"^\| `python -m nox -s (\w+)", text, re.MULTILINE)))
    assert not missing, f"The table of tasks in CONTRIBUTING.md does not list {', '.join(missing)}. Add a row for each."


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.parent.name != "reference"], ids=str)
def test_document_commands_are_valid(document: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    root = DOCS.parent
    sessions = nox_sessions()
    for line in commands(document.read_text()):
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[:1] == ["pte-tracking"] and not words[1].startswith("-"):
                _, subcommand, arguments = group.resolve_command(
                    group.make_context("pte-tracking", [words[1]]), words[1:]
                )
                assert subcommand is not None, command
                # Inline commands often omit the run directory.
                takes_run = any(parameter.param_type_name == "argument" for parameter in subcommand.params)
                omits_run = takes_run and all(word.startswith("-") for word in arguments)
                subcommand.make_context(words[1], [*arguments, "RUN"] if omits_run else arguments)
            elif words[:3] == ["python", "-m", "nox"]:
                named = itertools.takewhile(lambda word: word != "--", words[words.index("-s") + 1 :])
                assert set(named) <= sessions, command
            elif words[:1] == ["pytest"]:
                assert all((root / word).exists() for word in words[1:] if word.startswith("tests")), command


def public_names() -> set[str]:
    """Return the public names of all public modules, without importing modules that require a client library."""
    root = DOCS.parent
    names = set()
    for path in [*root.glob("pte_tracking/**/*.py"), *root.glob("backends/pte_backends/*/__init__.py")]:
        parts = path.relative_to(root / "backends" if "backends" in path.parts else root).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        if any(part.startswith("_") for part in module.split(".")):
            continue
        if listed := re.search(r"^__all__ = (\[.*?\])", path.read_text(), re.MULTILINE | re.DOTALL):
            names |= {f"{module}.{name}" for name in ast.literal_eval(listed[1])}
        elif re.search(r"^ *__all__ = ", path.read_text(), re.MULTILINE):
            names |= {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    return names


def test_api_reference_lists_every_public_name() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "_reference").glob("*.md"))
    # A name that several modules export is listed once.
    listed = {name.rpartition(".")[2] for name in re.findall(r":: ([\w.]+)$", pages, re.MULTILINE)}
    names = public_names()
    assert {"pte_tracking.Run", "pte_tracking.sinks.Sink", "pte_backends.json.JsonSink"} <= names
    modules = {name.rpartition(".")[0] for name in names}
    missing = sorted(name for name in names - modules if name.rpartition(".")[2] not in listed | {"__version__"})
    assert not missing, (
        f"No page in docs/_reference lists {', '.join(missing)}. Add a line such as '.. autoclass:: {missing[0]}', and "
        "run: python -m nox -s reference"
    )


@pytest.mark.parametrize("alias", ["AnyEvent", "Status", "EventKind", "Display"])
def test_events_page_shows_all_members_of_type(alias: str) -> None:
    (code,) = re.findall(
        rf"^## {alias}\n\n```python\n(.*?)^```", (DOCS / "reference/events.md").read_text(), re.M | re.S
    )
    members = get_args(getattr(sinks, alias))
    assert re.findall(r"[A-Za-z]+", code.removeprefix("Literal")) == [getattr(m, "__name__", m) for m in members]


def test_reference_pages_take_no_description_as_type() -> None:
    """Napoleon takes the text before a colon, in the summary of a property or in Returns, as a type."""
    pages = {page.name: page.read_text() for page in (DOCS / "reference").glob("*.md")}
    assert [name for name, text in pages.items() if "* **Type:**" in text or "* **Return type:**" in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_document_is_readable_without_a_build(document: Path) -> None:
    """The page of a repository shows directives and roles of Sphinx as they are written."""
    directives = re.findall(
        r"^```\{.*?\}(?:.*\n)(?!:hidden:|:caption: .*\n:hidden:)", document.read_text(), re.MULTILINE
    )
    assert directives == []
    assert re.findall(r"(?<!`)\{[a-z:]+\}`", strip_code(document.read_text())) == []

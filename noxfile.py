"""The sessions of this project: ``python -m nox -s NAME``; ``python -m nox -l`` lists them."""

from __future__ import annotations

import shlex
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
#: MLflow reports its use to its makers unless told not to, and greets on the terminal.
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def install(session: nox.Session, *groups: str) -> None:
    """The project, editable and with all extras, and what the named dependency groups list."""
    session.install(*CONSTRAINTS, "-e", ".[all]", *nox.project.dependency_groups(GROUPS, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Train on digits with all three backends; what it leaves lies in the folder demo."""
    install(session, "examples")
    folder = ROOT / "demo"
    folder.mkdir(exist_ok=True)
    session.chdir(folder)
    # MLflow's own default, spelt out: a server that the user's environment names is left out of the demo.
    store = f"sqlite:///{folder / 'mlflow.db'}"
    env = QUIET | {"MLFLOW_TRACKING_URI": store}
    session.run("python", str(ROOT / "examples" / "digits.py"), *session.posargs, env=env)
    bin_directory = Path(session.bin)
    print(f"\nThe log: {folder / 'result' / 'log'}")
    print("To look at the run here, type this:")
    print(shlex.join([str(bin_directory / "pte-tracking"), "show", str(folder / "result")]))
    print("To look at it in a browser, type one of these and open the address that it shows:")
    print(shlex.join([str(bin_directory / "tensorboard"), "--logdir", str(folder)]))
    print(shlex.join([str(bin_directory / "mlflow"), "ui", "--backend-store-uri", store]))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, the slow ones too; arguments behind -- go to pytest."""
    install(session, "test")
    # One thread of torch for each of pytest's two processes: more of them get in each other's way.
    session.run("pytest", "-n", "2", *session.posargs, env=QUIET | {"OMP_NUM_THREADS": "1"})


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the pictures in docs/pictures again, with chromium."""
    install(session, "test", "screenshots")
    session.run("python", "-m", "tests.browser.screenshots", env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and layout of the code, and who imports whom."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # The linter reads imports from the sources, so nothing of the project needs to be installed.
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT / "backends")})


@nox.session
def types(session: nox.Session) -> None:
    """Type hints of the packages, then of the examples as a user's code."""
    install(session, "types", "examples")
    session.run("mypy")
    session.run("mypy", "examples")


@nox.session
def docs(session: nox.Session) -> None:
    """The papers as a site, in docs/_build; a link within it that leads nowhere is an error."""
    install(session, "docs")
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "docs", "docs/_build")
    print("docs/_build/index.html")


@nox.session
def crash(session: nox.Session) -> None:
    """Kill a training and its delivery a thousand times, and compare with a run that nobody kills."""
    install(session, "test")
    session.run("python", "tests/crash/trials.py", *(session.posargs or ["--kills", "1000"]), env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, side by side with the peers; names behind -- choose some."""
    install(session, "bench")
    session.run("python", "benchmarks/all.py", *session.posargs, env=QUIET)

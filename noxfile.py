"""Development sessions, run with: python -m nox -s NAME."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import nox

# uv installs in seconds what takes pip minutes, and links the files of several environments. Without uv, pip is used.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
# A Python version that is not installed is skipped and named.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
# uv does not read the settings of pip.
if "PIP_FIND_LINKS" in os.environ:
    os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"].replace(" ", ","))
#: Turn off the telemetry of MLflow and its messages on the terminal.
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


#: All extras, including those that are not part of "all".
EXTRAS = ",".join(GROUPS["project"]["optional-dependencies"])


def install(session: nox.Session, *groups: str, extras: str = "all") -> None:
    """Install the project (editable, with extras) and dependency groups."""
    session.install(*CONSTRAINTS, "-e", f".[{extras}]", *nox.project.dependency_groups(GROUPS, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Train the digits example with the JSON log, TensorBoard and MLflow. The results are in demo/."""
    install(session, "examples")
    folder = ROOT / "demo"
    folder.mkdir(exist_ok=True)
    session.chdir(folder)
    # The default of MLflow, set explicitly so that the demo ignores a server configured in the environment.
    store = f"sqlite:///{folder / 'mlflow.db'}"
    env = QUIET | {"MLFLOW_TRACKING_URI": store}
    session.run("python", str(ROOT / "examples" / "digits.py"), *session.posargs, env=env)
    bin_directory = Path(session.bin)
    print(f"\nLog: {folder / 'result' / 'log'}")
    print("Show the run in the terminal:")
    print(shlex.join([str(bin_directory / "pte-tracking"), "show", str(folder / "result")]))
    print("Show the run in a browser (open the address that the command prints):")
    print(shlex.join([str(bin_directory / "tensorboard"), "--logdir", str(folder)]))
    print(shlex.join([str(bin_directory / "mlflow"), "ui", "--backend-store-uri", store]))


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, including slow ones. Arguments after -- are passed to pytest."""
    install(session, "test", extras=EXTRAS)
    # Three pytest processes on two cores, because many tests wait: one thread of torch each is fastest. Each process
    # starts with a third of the tests in order, which share fixtures, and takes over tests of the others at the end.
    # The tests start more than a thousand interpreters, which would compile this package each time without bytecode.
    env = QUIET | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    session.run("pytest", "-n", "3", "--dist", "worksteal", "--durations", "10", *session.posargs, env=env)


@nox.session(venv_backend="uv", python=["3.10", "3.11", "3.12", "3.13", "3.14"])
@nox.parametrize("resolution", ["lowest-direct", "highest"])
def compat(session: nox.Session, resolution: str) -> None:
    """Run the fast tests with the lowest supported and the newest dependencies on each Python version."""
    requirements = ["-e", f".[{EXTRAS}]", *nox.project.dependency_groups(GROUPS, "test")]
    session.install("--resolution", resolution, "--only-binary", ":all:", "--upgrade", *requirements)
    session.run("uv", "pip", "freeze", external=True)
    session.run("pytest", "-n", "2", "-m", "not slow", *session.posargs, env=QUIET | {"OMP_NUM_THREADS": "1"})


#: Tested releases of the W&B client library, whose file format the sink writes itself.
WANDB_RELEASES = [f"0.{minor}" for minor in range(20, 32)]


@nox.session
def wandb(session: nox.Session) -> None:
    """Test the W&B sink with the newest patch of each release of the client library, or of those named after --."""
    install(session, "test", extras="tensorboard,wandb")
    for release in session.posargs or WANDB_RELEASES:
        session.install(f"wandb=={release}.*")
        # Earlier releases cause warnings of the newest pydantic.
        command = ["pytest", "-q", "-W", "ignore::UserWarning", "tests/backends/test_wandb.py"]
        session.run(*command, env=QUIET | {"OMP_NUM_THREADS": "1"})


@nox.session
def screenshots(session: nox.Session) -> None:
    """Regenerate the images in docs/pictures with Chromium. Arguments select groups, such as plots and mlflow."""
    install(session, "test", "screenshots")
    session.run("python", "-m", "tests.browser.screenshots", *session.posargs, env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, spelling, import contracts, and the files for GitHub."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # import-linter analyzes the source files, so the project does not need to be installed.
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT / "backends")})
    workflows = sorted(map(str, (ROOT / ".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    forms = [str(ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yml") for name in ("bug", "feature")]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-issue-forms", *forms)
    session.run("check-jsonschema", "--builtin-schema", "vendor.citation-file-format", str(ROOT / "CITATION.cff"))
    session.run("codespell")
    session.run("typos")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the packages, then of the examples and the public names as user code."""
    install(session, "types", "examples")
    # The oldest and the newest Python, and functions that only some systems have.
    for version, platform in (("3.10", "linux"), ("3.14", "darwin"), ("3.14", "win32")):
        session.run("mypy", "--python-version", version, "--platform", platform)
    session.run("mypy", "examples")
    # A user's side of the public names, also with the type checker of VS Code.
    session.run("mypy", "--warn-unused-ignores", "tests/typing/user_code.py")
    session.run("pyright")


@nox.session
def reference(session: nox.Session) -> None:
    """Generate docs/reference from the docstrings and from the help of the command line."""
    install(session, "docs")
    session.run("python", "docs/_reference/generate.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in docs/_build. Warnings, such as broken links, and an old reference are errors."""
    install(session, "docs")
    session.run("python", "docs/_reference/generate.py", "--check")
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "docs", "docs/_build")
    print("docs/_build/index.html")


@nox.session
def lock(session: nox.Session) -> None:
    """Add missing packages to constraints.txt. Pass --upgrade after -- for newer versions of all packages."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(GROUPS, "lock"))
    groups = [f"--group={name}" for name in GROUPS["dependency-groups"]]
    options = ["--universal", "--python-version=3.10", "--all-extras", *groups, "--no-annotate", "--quiet"]
    options += ["--custom-compile-command=python -m nox -s lock", "--output-file=constraints.txt", *session.posargs]
    session.run("uv", "pip", "compile", "pyproject.toml", *options)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show the changelog of the next release. Pass build after -- to move it from changelog.d/ to CHANGELOG.md."""
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(GROUPS, "changelog"))
    options = ["--yes"] if session.posargs == ["build"] else ["--draft"]
    session.run("towncrier", "build", "--version", GROUPS["project"]["version"], *options)


@nox.session
def release(session: nox.Session) -> None:
    """Build dist/ reproducibly, test the wheel, and write build/sbom.cdx.json. Pass the tag after -- to check it."""
    version = GROUPS["project"]["version"]
    if session.posargs and session.posargs != [f"v{version}"]:
        session.error(f"Expected the tag v{version}, got {' '.join(session.posargs)}.")
    if session.posargs and list((ROOT / "changelog.d").glob("*.*.md")):
        session.error("changelog.d/ contains entries. Run: python -m nox -s changelog -- build")
    session.install(*CONSTRAINTS, *nox.project.dependency_groups(GROUPS, "release"))
    commit_time = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True)
    folders = [ROOT / "dist", Path(session.create_tmp()) / "dist"]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        command = ["python", "-m", "build", "--no-isolation", "--outdir", str(folder)]
        session.run(*command, env={"SOURCE_DATE_EPOCH": str(commit_time).strip()})
    wheel, archive = sorted(folders[0].iterdir(), key=lambda path: path.suffix, reverse=True)
    for path in (wheel, archive):
        if path.read_bytes() != (folders[1] / path.name).read_bytes():
            session.error(f"Two builds of {path.name} differ.")
    session.install(*CONSTRAINTS, f"{wheel}[all]", *nox.project.dependency_groups(GROUPS, "test"))
    _test_wheel(session, archive)
    for path in (archive, wheel):
        python = _install_with_pip(session, path)
    _write_sbom(session, python)


def _test_wheel(session: nox.Session, archive: Path) -> None:
    """Run the fast tests of the source archive with the installed wheel."""
    folder = Path(session.create_tmp()) / "tests"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(archive, folder)
    (project,) = folder.iterdir()
    for package in ("pte_tracking", "backends"):
        shutil.rmtree(project / package)
    with session.chdir(project):
        tested = ["store", "runs", "delivery", "backends", "engine", "extensions", "triggers", "cli"]
        paths = [f"tests/{name}" for name in tested]
        session.run("python", "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *paths, env=QUIET)


def _install_with_pip(session: nox.Session, archive: Path) -> str:
    """Install an archive with its extras as a user does, train, and return the Python of the environment."""
    environment = Path(session.create_tmp()) / "installed"
    shutil.rmtree(environment, ignore_errors=True)
    session.run("python", "-m", "venv", str(environment))
    python = str(environment / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", *CONSTRAINTS, f"{archive}[all]", external=True)
    with session.chdir(environment):
        session.run(python, str(ROOT / "tests/packaging/plain_training.py"), "result", external=True)
        session.run(str(environment / "bin" / "pte-tracking"), "show", "result", external=True)
    return python


def _write_sbom(session: nox.Session, python: str) -> None:
    """Write the software bill of materials of an environment with the package and its extras."""
    session.run(python, "-m", "pip", "uninstall", "-qy", "pip", external=True)
    (ROOT / "build").mkdir(exist_ok=True)
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", "build/sbom.cdx.json"]
    session.run("cyclonedx-py", "environment", *options, python)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill training and delivery 1,000 times and compare the results with an uninterrupted run."""
    install(session, "test")
    session.run("python", "tests/crash/trials.py", *(session.posargs or ["--kills", "1000"]), env=QUIET)


@nox.session
def power_loss(session: nox.Session) -> None:
    """Resume from each state that a loss of power may leave. Requires strace. Arguments after -- limit the states."""
    install(session, "test")
    session.run("python", "tests/crash/power_loss/trials.py", *session.posargs, env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Run all benchmarks, or only those named after --."""
    install(session, "bench", extras=EXTRAS)
    session.run("python", "benchmarks/all.py", *session.posargs, env=QUIET)

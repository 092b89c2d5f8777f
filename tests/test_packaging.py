"""Tests of the project metadata and the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

import pte_tracking

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
BACKENDS = {folder.parent.name for folder in (ROOT / "backends/pte_backends").glob("*/__init__.py")}
PACKAGES = ["pte_tracking", "backends/pte_backends"]


def package_files(package: str) -> set[str]:
    folder = ROOT / package
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder.parent)) for file in files}


def test_changelog_entries_have_known_kinds() -> None:
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    names = [path.name for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md"]
    assert [name for name in names if name.split(".")[-2] not in kinds] == []  # towncrier would ignore them


def test_version_matches_project_file() -> None:
    assert pte_tracking.__version__ == PROJECT["project"]["version"]


def test_wheel_configuration_lists_two_packages() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == PACKAGES


def test_entry_points_name_every_backend() -> None:
    entry_points = PROJECT["project"]["entry-points"]["pte_tracking.sinks"]
    modules = {name: target.partition(":")[0] for name, target in entry_points.items()}
    assert modules == {backend: f"pte_backends.{backend}" for backend in BACKENDS}, (
        "Register each package in backends/pte_backends as an entry point in pyproject.toml."
    )


def test_installed_entry_points_match_project_file() -> None:
    entry_points = distribution("pte-tracking").entry_points.select(group="pte_tracking.sinks")
    installed = {point.name: point.value for point in entry_points}
    assert installed == PROJECT["project"]["entry-points"]["pte_tracking.sinks"], "install the project again"


def test_mypy_and_import_linter_cover_every_package() -> None:
    packages = {"pte_tracking", "pte_backends"}
    assert set(PROJECT["tool"]["mypy"]["packages"]) == packages
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == packages


def test_import_linter_keeps_every_backend_independent() -> None:
    (contract,) = (entry for entry in PROJECT["tool"]["importlinter"]["contracts"] if entry["type"] == "independence")
    assert set(contract["modules"]) == {f"pte_backends.{backend}" for backend in BACKENDS}, (
        "List each backend in the contract 'Backends are independent of each other' in pyproject.toml."
    )


def test_backend_reference_lists_every_sink() -> None:
    page = (ROOT / "docs/_reference/backends.md").read_text()
    entry_points = PROJECT["project"]["entry-points"]["pte_tracking.sinks"].values()
    missing = [sink for target in entry_points if f":: {(sink := target.replace(':', '.'))}\n" not in page]
    assert not missing, (
        f"docs/_reference/backends.md does not list {', '.join(missing)}. Add a line such as '.. autoclass:: "
        f"{missing[0]}', and run: python -m nox -s reference"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_py_typed_marker(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_all_extra_combines_extras_without_further_stores_and_loops() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["all"] == ["pte-tracking[tensorboard,mlflow,ignite,plot]"]


def runtime_requirements() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"]
    return [*PROJECT["project"]["dependencies"], *(line for name in extras if name != "all" for line in extras[name])]


@pytest.mark.parametrize("requirement", [*runtime_requirements(), *PROJECT["dependency-groups"]["test"]])
def test_dependency_declares_lowest_version(requirement: str | dict[str, str]) -> None:
    assert isinstance(requirement, dict) or re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+(; .*)?", requirement)


@pytest.mark.parametrize("requirement", runtime_requirements())
def test_compatibility_page_lists_lowest_version(requirement: str) -> None:
    name, _, version = requirement.partition(">=")
    row = f"\n| {name} | {version} | "
    assert row in (ROOT / "docs/compatibility.md").read_text(), f"docs/compatibility.md has no row {row.strip()!r}."


def test_constraints_pin_every_dependency() -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = [
        requirement
        for name, requirements in project["optional-dependencies"].items()
        if name != "all"
        for requirement in requirements
    ]
    installed = [requirement for group in groups.values() for requirement in group if isinstance(requirement, str)]
    required = {re.split(r"[\[>]", requirement)[0] for requirement in (*project["dependencies"], *extras, *installed)}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    assert required <= pinned, "run: python -m nox -s lock"


#: Names on conda-forge that differ from those on PyPI.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "pytorch-ignite": "ignite"}


def conda_requirements(requirements: Iterable[str]) -> list[str]:
    parts = (re.fullmatch(r"([\w-]+)(.*)", requirement) for requirement in requirements)
    return [f"{CONDA_NAMES.get(part[1], part[1])} {part[2]}" for part in parts if part]


def test_conda_recipe_matches_project_file() -> None:
    recipe = yaml.safe_load((ROOT / ".github/conda/recipe.yaml").read_text())
    project, python = PROJECT["project"], f"python {PROJECT['project']['requires-python']}"
    extras = project["optional-dependencies"]
    optional = {requirement for name, requirements in extras.items() if name != "all" for requirement in requirements}
    assert sorted(recipe["requirements"]["run"]) == sorted([python, *conda_requirements(project["dependencies"])])
    assert sorted(recipe["requirements"]["run_constraints"]) == sorted(conda_requirements(optional))
    build = conda_requirements(PROJECT["build-system"]["requires"])
    assert sorted(recipe["requirements"]["host"]) == sorted([python, "pip", *build])
    scripts = [f"{name} = {target}" for name, target in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["context"]["version"] == project["version"]
    about = {"summary": project["description"], "license": project["license"], "license_file": "LICENSE"}
    assert recipe["about"] == about


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all files in a wheel built from the working tree, without its metadata."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_wheel_top_level_is_two_packages(wheel_files: set[str]) -> None:
    assert {name.partition("/")[0] for name in wheel_files} == {"pte_tracking", "pte_backends"}


def test_wheel_contains_every_package_file(wheel_files: set[str]) -> None:
    assert wheel_files == set().union(*map(package_files, PACKAGES))


def test_pre_commit_hooks_use_locked_versions() -> None:
    locked = (ROOT / "constraints.txt").read_text()
    pinned = re.findall(r"additional_dependencies: \[(.+)\]", (ROOT / ".pre-commit-config.yaml").read_text())
    assert len(pinned) == 4
    assert [line for line in pinned if not re.search(rf"^{re.escape(line)}\b", locked, re.MULTILINE)] == []


def test_citation_has_version_of_project() -> None:
    assert f"\nversion: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()

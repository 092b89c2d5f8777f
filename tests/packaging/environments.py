"""Virtual environments that contain a wheel of this project and only what its requirements name.

The dependencies are linked from the environment of the tests, so that nothing is downloaded. The release workflow
installs the same wheel with pip from an index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: The tests of installed packages must not see the source files.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class Environment:
    """Virtual environment.

    Args:
        directory: New directory.
        wheel: Wheel of this project.
        extra: Names of extras, separated by commas, or an empty string.
    """

    def __init__(self, directory: Path, wheel: Path, extra: str) -> None:
        venv.create(directory, symlinks=True)
        self._programs = directory / "bin"
        command = [sys.executable, "-m", "pip", "--python", str(self._programs / "python"), "install", "--quiet"]
        subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True, env=_ENVIRONMENT)
        (packages,) = directory.glob("lib/python*/site-packages")
        (own,) = Distribution.discover(name="pte-tracking", path=[str(packages)])
        for dependency in _find_dependencies(own, extra):
            _link(dependency, packages)

    def python(self, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python in the environment."""
        return self._run([str(self._programs / "python"), *arguments], directory)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``pte-tracking`` in the environment."""
        return self._run([str(self._programs / "pte-tracking"), *arguments], None)

    @staticmethod
    def _run(command: list[str], directory: Path | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=directory, env=_ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
        )


def _find_dependencies(own: Distribution, extra: str) -> list[Distribution]:
    """Return the installed distributions that a distribution requires, and those that they require."""
    found: dict[tuple[str, str], Distribution] = {}
    pending = [(own, name) for name in extra.split(",")]
    while pending:
        current, current_extra = pending.pop()
        for requirement in map(Requirement, current.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": current_extra}):
                continue
            is_own = canonicalize_name(requirement.name) == "pte-tracking"
            target = own if is_own else distribution(requirement.name)
            for name in ("", *requirement.extras):
                key = canonicalize_name(requirement.name), name
                if key not in found:
                    found[key] = target
                    pending.append((target, name))
    return [target for target in {id(target): target for target in found.values()}.values() if target is not own]


def _link(dependency: Distribution, packages: Path) -> None:
    root = Path(sysconfig.get_path("purelib"))
    for file in dependency.files or ():
        source = Path(str(file.locate()))
        if ".." in file.parts or source.suffix == ".pyc" or root not in source.parents:
            continue  # a program, or a compiled file
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():  # some distributions share files
            target.symlink_to(source)

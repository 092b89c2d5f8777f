"""Command that runs a module in a new Python process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The path is set before any other import, and the code is passed on the command line, because a module in the current
# directory could replace one of the standard library.
_CODE = (
    "import sys; sys.path[:] = {path}; import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)
_LIBRARY = str(Path(os.path.abspath(__file__)).parents[2])


def python_command(module: str) -> list[str]:
    r"""Return a command that runs a module where this process would import it from.

    The new process searches the directories of ``sys.path``, in the same order, without the directory of the script or
    the current directory that Python itself adds: files of the user there may have the name of a module.

    Args:
        module: Name of the module, or of a package with a ``__main__`` module.

    Returns:
        The command, to which arguments can be appended.

    Example:
        >>> import subprocess
        >>> from pte_tracking.sinks import python_command
        >>> command = [*python_command("json.tool"), "--compact"]
        >>> subprocess.run(command, input='{"a":  1}', capture_output=True, text=True).stdout
        '{"a":1}\n'
    """
    return [sys.executable, "-c", _CODE.format(path=ascii(_search_path()), module=module)]


def _search_path() -> list[str]:
    added = None if getattr(sys.flags, "safe_path", False) else _directory_added_by_python()
    directories = []
    for entry in sys.path:
        if not isinstance(entry, str) or not entry:  # Python itself ignores other types.
            continue
        directory = os.path.abspath(entry)
        if added is not None and os.path.realpath(directory) == added:
            added = None  # The user may have added the same directory again.
            continue
        directories.append(directory)
    # A copy of the library next to the script is found last.
    return directories if _LIBRARY in directories else [*directories, _LIBRARY]


def _directory_added_by_python() -> str | None:
    """Return the first directory of ``sys.path`` for the running program. None if it is the empty string."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or not os.path.exists(file):  # "<stdin>"
        return None
    is_module = getattr(main, "__spec__", None) is not None  # python -m
    return os.path.realpath("." if is_module else os.path.dirname(os.path.abspath(file)))

"""Execute notebooks. ``python -m tests.notebooks`` stores the outputs of ``examples/quickstart.ipynb``."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def read_notebook() -> Any:
    import nbformat

    return nbformat.read(QUICKSTART, as_version=4)


def execute(notebook: Any, folder: Path, cells: Sequence[Any] | None = None, allow_errors: bool = False) -> Any:
    """Return a copy of a notebook, executed in a new kernel.

    Args:
        notebook: The notebook.
        folder: Working directory of the kernel. Outputs name paths relative to it.
        cells: Cells to execute instead of those of the notebook.
        allow_errors: Whether to continue after a cell that raises an exception.
    """
    from nbclient import NotebookClient

    executed = copy.deepcopy(notebook)
    if cells is not None:
        executed.cells = copy.deepcopy(list(cells))
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        executed,
        timeout=120,
        kernel_name="python3",
        resources=resources,
        allow_errors=allow_errors,
        record_timing=False,
        store_widget_state=False,
    )
    client.execute(env=os.environ | {"PTE_TRACKING_PROVENANCE": "off"})
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text.replace(f"{folder}{os.sep}", "")
    return executed


def main() -> None:
    import nbformat

    folder = Path(tempfile.mkdtemp()).resolve()
    try:
        executed = execute(read_notebook(), folder)
    finally:
        shutil.rmtree(folder)
    executed.metadata = {"kernelspec": executed.metadata.kernelspec, "language_info": {"name": "python"}}
    nbformat.write(executed, QUICKSTART)


if __name__ == "__main__":
    main()

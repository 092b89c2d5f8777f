"""Import of MLflow in the delivery process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURE = "import sys; from pte_backends.mlflow import _client; _client.configure(); "


def run_code(code: str, *paths: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_mlflow(folder: Path, code: str) -> Path:
    (folder / "mlflow").mkdir()
    (folder / "mlflow" / "__init__.py").write_text(code)
    return folder


def test_import_of_mlflow_omits_unused_packages() -> None:
    packages = {"fastapi", "numpy", "pandas", "polars", "pyarrow"}
    assert run_code(CONFIGURE + f"print({packages}.intersection(sys.modules))") == "set()"


def test_local_store_opens_without_pygments(mlflow_store: str, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from pte_backends.mlflow import MLflowSink
from pte_tracking.testing import RecordedRun
run = RecordedRun(Path({str(tmp_path / "run")!r}), MLflowSink({mlflow_store!r}))
run.log(1, {{"loss": 0.5}})
run.deliver()
import mlflow
print("pygments" in sys.modules, mlflow.MlflowClient({mlflow_store!r}).search_runs(["0"])[0].data.metrics)
"""
    assert run_code(code) == "False {'loss': 0.5}"


def test_fastapi_after_import_of_mlflow_is_real() -> None:
    assert run_code(CONFIGURE + "import fastapi; print(fastapi.FastAPI.__name__)") == "FastAPI"


@pytest.mark.parametrize(
    "use", ["from fastapi import HTTPException, Request", "import fastapi\nRequest = fastapi.Request"]
)
def test_mlflow_that_uses_more_of_fastapi_is_imported_with_it(use: str, tmp_path: Path) -> None:
    make_mlflow(tmp_path, f"{use}\nfrom mlflow import part\n")
    (tmp_path / "mlflow" / "part.py").write_text("from fastapi.responses import Response\n")
    code = CONFIGURE + "import mlflow; print(mlflow.Request.__module__, mlflow.part.Response.__module__)"
    assert run_code(code, tmp_path) == "starlette.requests starlette.responses"


def test_mlflow_that_cannot_be_imported_raises_its_own_error(tmp_path: Path) -> None:
    make_mlflow(tmp_path, "import package_that_does_not_exist\n")
    code = f"""
try:
    {CONFIGURE}
except ImportError as error:
    print(error.name)
"""
    assert run_code(code, tmp_path) == "package_that_does_not_exist"


def test_other_thread_imports_real_packages_while_mlflow_is_imported(tmp_path: Path) -> None:
    code = """
import threading
from fastapi import HTTPException
try:
    import pygments
except ImportError as error:
    missing = error.name
def use_packages():
    import fastapi, pygments.lexer
    used.append((fastapi.FastAPI.__name__, pygments.lexer.Lexer.__name__))
used = []
thread = threading.Thread(target=use_packages)
thread.start()
thread.join()
"""
    make_mlflow(tmp_path, code)
    report = "import builtins, mlflow; print(mlflow.missing, mlflow.used, builtins.__import__.__class__.__name__)"
    assert run_code(CONFIGURE + report, tmp_path) == ("pygments [('FastAPI', 'Lexer')] builtin_function_or_method")

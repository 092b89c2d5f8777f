"""Status of runs that nobody closes: scripts, signals, child processes, and deleted objects."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking._runs import base
from pte_tracking._runs.directory import claim_directory
from pte_tracking._runs.outcome import _stop_exceptions, outcome_of
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read
from pte_tracking._store.status import read_status

BEGIN = """
import os, signal, sys, threading
import pte_tracking as pte
run = pte.Run("run", close_timeout=0)
run.log_metrics({"a": 1.0}, 1)
def end(status):
    sys.exit(status)
"""

SCRIPTS: dict[str, tuple[str, str]] = {
    "end": ("FINISHED", "pass"),
    "exit 0": ("FINISHED", "sys.exit(0)"),
    "exit": ("FINISHED", "sys.exit()"),
    "exit 1": ("FAILED", "sys.exit(1)"),
    "exit message": ("FAILED", "sys.exit('no data')"),
    "exit 143": ("KILLED", "sys.exit(143)"),
    "exit in a function": ("FAILED", "end(3)"),
    "builtin exit": ("FINISHED", "exit()"),
    "builtin exit 2": ("FAILED", "exit(2)"),
    "builtin quit": ("FAILED", "quit(code=2)"),
    "raise 2": ("FAILED", "raise SystemExit(2)"),
    "raise 0": ("FINISHED", "raise SystemExit(0)"),
    "raise without status": ("FINISHED", "raise SystemExit"),
    "raise a variable": ("FINISHED", "status = 0\nraise SystemExit(status)"),
    "raise in a function": ("FAILED", "def stop():\n    raise SystemExit(0)\nstop()"),
    "error": ("FAILED", "1 / 0"),
    "caught error": ("FAILED", "try:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(1)"),
    "caught error and end": ("FINISHED", "try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass"),
    "caught exit and end": ("FINISHED", "try:\n    end(1)\nexcept SystemExit:\n    pass"),
    "caught exit 0 and raise": ("FAILED", "try:\n    end(0)\nexcept SystemExit:\n    pass\nraise SystemExit(2)"),
    "finally": ("FINISHED", "try:\n    end(0)\nfinally:\n    print()"),
    "finally 1": ("FAILED", "try:\n    end(1)\nfinally:\n    print()"),
    "exit in a thread": ("FINISHED", "thread = threading.Thread(target=end, args=(1,))\nthread.start()\nthread.join()"),
    "interrupt": ("KILLED", "raise KeyboardInterrupt"),
    "own interrupt": (
        "KILLED",
        # A shell without job control ignores SIGINT in its background processes.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)",
    ),
    "terminated": ("KILLED", "os.kill(os.getpid(), signal.SIGTERM)"),
    "handler exits 0": (
        "KILLED",
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))\nos.kill(os.getpid(), signal.SIGTERM)",
    ),
    "handler exits 1": (
        "KILLED",
        "def handle(*_):\n    end(1)\nsignal.signal(signal.SIGTERM, handle)\nos.kill(os.getpid(), signal.SIGTERM)",
    ),
    "handler is called directly": (
        "FINISHED",
        "def stop(number=None, frame=None):\n    end(0)\nsignal.signal(signal.SIGTERM, stop)\nstop()",
    ),
    "timer": (
        "FAILED",
        "def late(*_):\n    end(1)\nsignal.signal(signal.SIGALRM, late)\nos.kill(os.getpid(), signal.SIGALRM)",
    ),
    "click": ("FAILED", "import click\n@click.command()\ndef main():\n    raise click.ClickException('no')\nmain([])"),
    "click 0": ("FINISHED", "import click\n@click.command()\ndef main():\n    pass\nmain([])"),
    "exec": ("FAILED", "exec('run.log_metrics({}, 2)')\nsys.exit(1)"),
}


def run_script(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    (directory / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def end_of(directory: Path) -> events.RunEnded:
    (end,) = [event for event, _ in read(directory / "journal.jsonl") if isinstance(event, events.RunEnded)]
    return end


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_end_sets_status(tmp_path: Path, name: str) -> None:
    status, end = SCRIPTS[name]
    if "click" in name:
        pytest.importorskip("click")
    done = run_script(tmp_path, BEGIN + end)
    assert read_status(tmp_path / "run") == status, done.stderr
    if status == "FINISHED" and not name.startswith("handler"):
        assert done.returncode == 0


def test_script_end_with_unknown_exit_status_says_so(tmp_path: Path) -> None:
    run_script(tmp_path, BEGIN + SCRIPTS["raise in a function"][1])
    assert str(end_of(tmp_path / "run").error).startswith("SystemExit of unknown exit status before the run was closed")


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(1)", "FAILED"), ("sys.exit(0)", "FINISHED"), ("1 / 0", "FAILED")]
)
def test_script_with_run_in_a_function_sets_status(tmp_path: Path, end: str, status: str) -> None:
    body = textwrap.indent(BEGIN + end, "    ")
    run_script(tmp_path, f"def main():\n{body}\nmain()")
    assert read_status(tmp_path / "run") == status


@pytest.mark.parametrize(("returned", "status"), [("None", "FINISHED"), ("0", "FINISHED"), ("1", "FAILED")])
def test_script_that_exits_with_the_result_of_main_sets_status(tmp_path: Path, returned: str, status: str) -> None:
    script = f"import sys\nimport pte_tracking as pte\ndef main():\n    {{}}\n    return {returned}\nsys.exit(main())"
    # The module keeps the run until the interpreter ends.
    run_script(tmp_path, script.format("global run\n    run = pte.Run('run')\n    run.log_metrics({'a': 1.0}, 1)"))
    assert read_status(tmp_path / "run") == status


@pytest.mark.parametrize("command", [["-c", BEGIN + "end(1)"], ["-m", "script"], ["-c", "import script"]])
def test_started_in_another_way_sets_status(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "script.py").write_text(BEGIN + "end(1)")
    subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "") + ":."},
    )
    assert read_status(tmp_path / "run") == "FAILED"


CHILD = """
import multiprocessing, sys
import pte_tracking as pte
def work(end):
    global run
    run = pte.Run("run", close_timeout=0)
    run.log_metrics({"a": 1.0}, 1)
    if end == "error":
        raise ValueError("no data")
    if end != "end":
        sys.exit(end)
if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(eval(sys.argv[2]),))
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize(
    ("end", "status"), [("'end'", "FINISHED"), ("'error'", "FAILED"), ("3", "FAILED"), ("0", "FINISHED")]
)
def test_child_process_sets_status(tmp_path: Path, method: str, end: str, status: str) -> None:
    (tmp_path / "script.py").write_text(CHILD)
    subprocess.run(
        [sys.executable, "script.py", method, end], cwd=tmp_path, capture_output=True, timeout=60, check=True
    )
    assert end_of(tmp_path / "run").status == status


def test_error_message_names_the_progress(tmp_path: Path) -> None:
    for name, error, message in [
        ("failed", ValueError("no data"), "ValueError: no data; ended at iteration 7 of 30"),
        ("exit", SystemExit(1), "SystemExit: 1; ended at iteration 7 of 30"),
        ("finished", None, None),
    ]:
        run = Run(tmp_path / name)
        run.describe_progress = lambda: "ended at iteration 7 of 30"
        run.open()
        run.close(*outcome_of(error))
        assert end_of(tmp_path / name).error == message


# -- exceptions that stop a training on purpose ------------------------------------------------------------------------


def make_exception(module: str, name: str, base: type[Exception] = Exception) -> type[Exception]:
    return type(name, (base,), {"__module__": module})


@pytest.mark.parametrize(
    "kind",
    [
        make_exception("optuna.exceptions", "TrialPruned"),
        make_exception("mine", "Pruned", make_exception("optuna.exceptions", "TrialPruned")),
    ],
)
def test_stop_exception_finishes_the_run_with_a_tag(tmp_path: Path, kind: type[Exception]) -> None:
    def train() -> None:
        with Run(tmp_path):
            raise kind

    with pytest.raises(kind):
        train()
    assert end_of(tmp_path).status == "FINISHED"
    (tags,) = [event for event, _ in read(tmp_path / "journal.jsonl") if isinstance(event, events.Tags)]
    assert tags.values == {"stopped_by": "optuna.TrialPruned"}


def test_stop_exception_of_another_package_fails_the_run() -> None:
    assert outcome_of(make_exception("other", "TrialPruned")()).status == "FAILED"
    assert outcome_of(make_exception("optunax", "TrialPruned")()).status == "FAILED"


def test_register_stop_exception_accepts_class_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pte_tracking._runs.outcome._stop_exceptions", set(_stop_exceptions))
    kind = make_exception("mine.stops", "Enough")
    pte.register_stop_exception(kind)
    assert outcome_of(kind()) == ("FINISHED", None, "mine.stops.Enough")
    pte.register_stop_exception("theirs.Enough")
    assert outcome_of(make_exception("theirs.deep", "Enough")()).stopped_by == "theirs.Enough"
    with pytest.raises(ValueError, match=r"exception: expected a name such as 'optuna.TrialPruned', got 'Enough'"):
        pte.register_stop_exception("Enough")
    with pytest.raises(TypeError, match="exception: expected a string"):
        pte.register_stop_exception(3)  # type: ignore[arg-type]


# -- deleted objects ---------------------------------------------------------------------------------------------------


def log_to(directory: Path, **options: Any) -> Run:
    run = Run(directory, **options)
    run.log_metrics({"a": 1.0}, 1)
    return run


def test_deleted_run_ends_and_releases_its_directory(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log_to(tmp_path)
    assert read_status(tmp_path) == "FINISHED"
    assert len(os.listdir("/proc/self/fd")) == before
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"a": 2.0}, 2)
    assert [row.step for row in run.rows()] == [1, 2]


def test_deleted_run_that_was_opened_again_keeps_its_status(tmp_path: Path) -> None:
    run = log_to(tmp_path)
    run.close("FAILED", "reason")
    run.log_metrics({"test": 1.0}, 1)
    del run
    assert read_status(tmp_path) == "FAILED"


def test_run_deleted_while_an_exception_is_handled_is_failed(tmp_path: Path) -> None:
    run: Run | None = log_to(tmp_path)
    try:
        raise ValueError("no data")
    except ValueError:
        run = None
    assert run is None
    assert end_of(tmp_path).status == "FAILED"


def test_run_in_a_cycle_calls_its_functions_when_it_is_collected(tmp_path: Path) -> None:
    called = []

    class Owner:
        def __init__(self) -> None:
            self.run = log_to(tmp_path)
            self.run.before_close.append(self.finish)

        def finish(self) -> None:
            called.append(self.run.id)
            self.run.log_metrics({"last": 1.0}, 2)

    Owner()
    gc.collect()
    assert len(called) == 1
    assert read_status(tmp_path) == "FINISHED"
    assert len(json.loads((tmp_path / "log").read_text())) == 2


class Cycle:
    """Owner of a run that only the garbage collector deletes."""

    def __init__(self, directory: Path) -> None:
        self.run = log_to(directory)
        self.run.before_close.append(self.finish)

    def finish(self) -> None:
        self.run.log_metrics({"last": 1.0}, 2)


def test_run_collected_while_another_one_opens_the_directory_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim_after_collection(*args: Any, **kwargs: Any) -> Any:
        try:
            return claim_directory(*args, **kwargs)
        finally:
            gc.collect()  # as any allocation may do

    monkeypatch.setattr(base, "claim_directory", claim_after_collection)
    Cycle(tmp_path)
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"loss": 1.0}, 3)
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [1, 2, 3]


def test_run_that_another_thread_collects_does_not_hold_its_directory(tmp_path: Path) -> None:
    is_ending, may_end = threading.Event(), threading.Event()

    def end_slowly() -> None:
        is_ending.set()
        may_end.wait(60)

    Cycle(tmp_path).run.before_close.append(end_slowly)
    thread = threading.Thread(target=gc.collect)
    thread.start()
    assert is_ending.wait(60)
    threading.Timer(0.2, may_end.set).start()
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"loss": 1.0}, 3)
    thread.join(60)
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [1, 2, 3]


def test_deleted_run_whose_function_fails_does_not_raise(tmp_path: Path) -> None:
    run = log_to(tmp_path)
    run.before_close.append(lambda: 1 / 0)
    del run
    assert read_status(tmp_path) == "FAILED"


@pytest.mark.parametrize("function", [pickle.dumps, copy.copy, copy.deepcopy])
def test_run_cannot_be_pickled_or_copied(tmp_path: Path, function: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled or copied, because only the process that created it"):
        function(Run(tmp_path))


# -- interrupted cells of a notebook -----------------------------------------------------------------------------------

CELLS = """
import code, contextlib, io, sys
sys.ps1 = "In : "
shell = code.InteractiveInterpreter({"__name__": "__main__"})
def run_cell(source):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        shell.runcode(compile(source, "<cell>", "exec"))
    return said.getvalue()
CELL = '''
import pte_tracking as pte
def train(error):
    run = pte.Run("run", close_timeout=0)
    run.log_metrics({"a": 1.0}, 1)
    if error:
        raise error
    run.close()
'''
run_cell(CELL)
"""


@pytest.mark.parametrize(("error", "status"), [("KeyboardInterrupt", "KILLED"), ("ValueError", "FAILED")])
def test_run_of_an_interrupted_cell_ends_when_the_cell_runs_again(tmp_path: Path, error: str, status: str) -> None:
    done = run_script(tmp_path, CELLS + f"run_cell('train({error})')\nassert 'Error' not in run_cell('train(None)')")
    assert done.returncode == 0, done.stderr
    (archived,) = (tmp_path / "run" / "previous").iterdir()
    assert (read_status(archived), read_status(tmp_path / "run")) == (status, "FINISHED")


def test_run_that_a_variable_refers_to_stays_open(tmp_path: Path) -> None:
    script = "run_cell('run = pte.Run(\"run\"); run.open()')\nassert 'DirectoryInUseError' in run_cell('train(None)')"
    done = run_script(tmp_path, CELLS + script)
    assert done.returncode == 0, done.stderr


# -- forked children ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("state", ["new", "held", "claimed", "ended"])
def test_forked_child_of_a_run_that_is_not_written_writes_nothing(tmp_path: Path, state: str) -> None:
    directory = tmp_path / "run"
    if state == "claimed":
        log_to(directory).close()
    run = Run(directory, resume=state == "claimed")
    if state == "held":
        run.hold()
    if state == "claimed":
        run.open()
    if state == "ended":
        run.log_metrics({"a": 1.0}, 1)
        run.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    child = os.fork()
    if not child:
        code = 1
        try:
            logging.getLogger("pte_tracking").addHandler(logging.FileHandler(tmp_path / "warnings"))
            run.log_metrics({"a": 2.0}, 2)
            run.log_text("a", "b")
            run.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (warning,) = (tmp_path / "warnings").read_text().splitlines()
    (tmp_path / "warnings").unlink()
    assert f"A forked process writes nothing to the run in {directory}" in warning
    assert f"training process {os.getpid()}" in warning
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run.log_metrics({"a": 3.0}, 3)
    run.close()
    assert run.rows()[-1].step == 3

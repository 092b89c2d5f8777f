"""Reports in tasks, threads, and processes, and reports outside an iteration."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.reporter import get_current_reporter, report, report_scope


def make_manager(out: Path, iterations: int = 3, model: nn.Module | None = None) -> pte.ExtensionsManager:
    log = extensions.LogReport(trigger=(1, "iteration"))
    return pte.ExtensionsManager(model or {}, 1, [log], iters_per_epoch=iterations, out_dir=out)


def run_script(tmp_path: Path, body: str) -> str:
    """Run a script that trains, and return its output. Forks of the test process itself would be slow."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_report_scopes_of_concurrent_tasks_of_one_reporter_stay_apart() -> None:
    reporter = pte.Reporter()

    async def evaluate(name: str, observation: dict[str, Any]) -> None:
        with report_scope(observation):
            for number in range(3):
                await asyncio.sleep(0)
                report({name: number})
                reporter.report({f"{name}/direct": number})

    async def evaluate_all() -> list[dict[str, Any]]:
        observations: list[dict[str, Any]] = [{} for _ in range(4)]
        await asyncio.gather(*(evaluate(str(index), each) for index, each in enumerate(observations)))
        return observations

    with reporter:
        observations = asyncio.run(evaluate_all())
    assert observations == [{str(index): 2, f"{index}/direct": 2} for index in range(4)]
    assert reporter.observation == {}


def test_task_that_outlives_its_iteration_reports_to_the_next_one(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, 2)

    async def train() -> None:
        async def report_late() -> None:
            await asyncio.sleep(0)
            report({"late": 1.0})

        with manager.run_iteration():
            task = asyncio.create_task(report_late())
        with manager.run_iteration():
            await task

    asyncio.run(train())
    assert [row.values for row in manager.run.rows()] == [{}, {"late": 1.0}]


def test_report_scope_left_in_another_context_has_no_effect_there() -> None:
    reporter, observation = pte.Reporter(), {}  # type: ignore[var-annotated]
    scope = reporter.scope(observation)
    contextvars.copy_context().run(scope.__enter__)
    with reporter:
        scope.__exit__(None, None, None)
        report({"x": 1})
    assert (reporter.observation, observation) == ({"x": 1}, {})


# -- threads -----------------------------------------------------------------------------------------------------------


def test_report_in_pool_threads_is_recorded_in_the_iteration(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            with manager.run_iteration():
                list(pool.map(lambda n: report({f"metric{n}": (float(n), 2)}), range(3)))
                assert pool.submit(get_current_reporter).result() is manager.reporter
    assert [row.values for row in manager.run.rows()] == [{"metric0": 0.0, "metric1": 1.0, "metric2": 2.0}] * 3


def test_report_in_pool_thread_between_iterations_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make_manager(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            with manager.run_iteration():
                report({"x": 1.0})
            if not manager.is_ended:
                pool.submit(report, {"stray": 1.0}).result()
    (message,) = caplog.messages
    assert "'stray' was reported between iterations" in message


def test_report_by_thread_while_extensions_run_warns_with_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(tmp_path, 1)
    with ThreadPoolExecutor(1) as pool:
        manager.extend(lambda manager: pool.submit(report, {"late": 1.0}).result(), name="late")
        with manager.run_iteration():
            report({"x": 1.0})
    (message,) = caplog.messages
    assert "'late' was reported by another thread while the extensions ran" in message


def test_report_in_pool_thread_with_two_trainings_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (make_manager(tmp_path / name) for name in "ab")
    with first.run_iteration():
        pass
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            with second.run_iteration():
                pool.submit(report, {"whose": 1.0}).result()
                context = contextvars.copy_context()
                pool.submit(context.run, report, {"known": 1.0}).result()
    (message,) = caplog.messages
    assert "'whose' was reported in a thread while several managers are training" in message
    assert [row.values for row in second.run.rows()] == [{"known": 1.0}] * 2
    first.close()
    second.close()


def test_trainings_in_threads_keep_their_own_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    managers = [make_manager(tmp_path / str(number), 20) for number in range(3)]

    def train(number: int) -> None:
        manager = managers[number]
        while not manager.stop_trigger:
            with manager.run_iteration():
                report({f"only{number}": float(number)})
            report({f"between{number}": 1.0})

    threads = [threading.Thread(target=train, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, manager in enumerate(managers):
        assert [row.values for row in manager.run.rows()] == [{f"only{number}": float(number)}] * 20
        assert sum(f"'between{number}'" in message for message in caplog.messages) == 1


# -- outside an iteration ----------------------------------------------------------------------------------------------


def test_report_between_iterations_warns_once_for_each_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        report({"before": 1.0})
        manager = make_manager(tmp_path)
        report({"before": 1.0})
        for _ in range(3):
            with manager.run_iteration():
                report({"x": 1.0})
            report({"stray": 1.0})
            manager.reporter.report({"direct": 1.0})

    contextvars.Context().run(train)  # Another test may have left a training in this context.
    assert [message.split(" and ")[0] for message in caplog.messages] == [
        "'stray' was reported between iterations",
        "'direct' was reported between iterations",
    ]


def test_report_after_training_warns_unless_a_model_reports_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Linear(1, 1)
    manager = make_manager(tmp_path, 1, model)
    with manager.run_iteration():
        report({"x": 1.0})
    assert manager.stop_trigger
    report({"size": 1.0}, model)
    report({"test/accuracy": 1.0})
    (message,) = caplog.messages
    assert "'test/accuracy' was reported after the end of the training" in message
    assert "run.log_metrics()" in message


def test_report_after_training_warns_also_after_another_reporter_was_current(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(tmp_path, 1)
    with manager.run_iteration():
        report({"x": 1.0})
    assert manager.stop_trigger
    evaluator = extensions.Evaluator([1.0, 3.0], nn.Linear(1, 1), eval_func=lambda x: report({"test/x": x}))
    assert evaluator() == {"test/x": 2.0}
    assert not caplog.messages
    report({"test/y": 1.0})
    evaluator(manager)
    assert [message.split(" was reported after the end")[0] for message in caplog.messages] == ["'test/y'", "'test/x'"]


def test_report_between_iterations_to_an_outer_reporter_is_collected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reporter, manager = pte.Reporter(), make_manager(tmp_path, 2)
    with reporter:
        for _ in range(2):
            with manager.run_iteration():
                report({"x": 1.0})
            report({"outer": 2.0})
    assert reporter.observation == {"outer": 2.0}
    assert not caplog.messages


def test_current_context_does_not_keep_an_ended_training_alive(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    reference = weakref.ref(model)
    manager = make_manager(tmp_path, 1, model)
    with manager.run_iteration():
        report({"x": 1.0})
    del manager, model
    gc.collect()
    assert reference() is None


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.slow
def test_report_in_forked_processes_warns_once_for_each_key(tmp_path: Path) -> None:
    output = run_script(
        tmp_path,
        """
        import os, sys, torch, pte_tracking as pte
        from pte_tracking import extensions

        manager = pte.ExtensionsManager({}, 1, [extensions.LogReport()], iters_per_epoch=2, out_dir="run")
        for _ in range(2):
            with manager.run_iteration():
                pte.report({"inside": 1.0})
                children = []
                for number in range(3):
                    if not (child := os.fork()):
                        for key in ("first", "second"):
                            pte.report({key: float(number)})
                        os._exit(0)
                    children.append(child)
                for child in children:
                    os.waitpid(child, 0)
        """,
    )
    assert [output.count(f"'{key}' was reported in process") for key in ("first", "second", "inside")] == [1, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_report_in_data_loader_worker_warns_once(method: str, tmp_path: Path) -> None:
    output = run_script(
        tmp_path,
        f"""
        import torch, pte_tracking as pte
        from pte_tracking import extensions

        class Data(torch.utils.data.Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, index):
                pte.report({{"augmented": float(index)}})
                return index

        if __name__ == "__main__":
            manager = pte.ExtensionsManager({{}}, 2, [extensions.LogReport()], iters_per_epoch=4, out_dir="run")
            loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="{method}")
            for batch in manager.batches(loader):  # Each epoch starts new workers.
                with manager.run_iteration():
                    pte.report({{"x": 1.0}})
        """,
    )
    (line,) = (line for line in output.splitlines() if "augmented" in line)
    assert "'augmented' was reported in process" in line


@pytest.mark.slow
def test_training_in_forked_process_records_its_reports(tmp_path: Path) -> None:
    output = run_script(
        tmp_path,
        """
        import json, os, pte_tracking as pte
        from pte_tracking import extensions

        def train(out):
            manager = pte.ExtensionsManager({}, 1, [extensions.LogReport()], iters_per_epoch=2, out_dir=out)
            for _ in range(2):
                with manager.run_iteration():
                    pte.report({"x": 1.0})
            return manager

        manager = train("parent")
        if not (child := os.fork()):
            train("child")
            os._exit(0)
        os.waitpid(child, 0)
        assert [row["x"] for row in json.load(open("child/log"))] == [1.0]
        """,
    )
    assert output == ""

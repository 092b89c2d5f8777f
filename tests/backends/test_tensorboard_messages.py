"""Messages that are built without TensorBoard's own functions, compared with these."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from pte_backends.tensorboard import TensorBoardSink, _values
from pte_backends.tensorboard._checksum import masked_checksum
from pte_tracking.testing import RecordedRun

RUN: Any = SimpleNamespace(id="abcdef123", name="digits-abcdef", start_time=1234.5)


@pytest.mark.parametrize("length", [0, 1, 8, 255, 4096])
def test_masked_checksum_equals_that_of_tensorboard(length: int) -> None:
    data = os.urandom(length)
    assert masked_checksum(data) == masked_crc32c(data)


def test_session_start_equals_that_of_tensorboard() -> None:
    params: Any = {"rate": 0.1, "layers": 3, "is_deep": True, "name": "x", "large": 2**60, "missing": None}
    shown = {"rate": 0.1, "layers": 3, "is_deep": True, "name": "x", "large": str(2**60)}
    expected = hparams_pb(shown, "digits-abcdef", 1234.5).value[0]
    built = _values.build_session_start(RUN, params)
    assert parse_plugin_data(built) == parse_plugin_data(expected)
    assert (built.tag, built.tensor) == (expected.tag, expected.tensor)


@pytest.mark.parametrize("succeeded", [True, False])
def test_session_end_equals_that_of_tensorboard(succeeded: bool) -> None:
    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=9.5)
    expected = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))
    built = _values.build_session_end(succeeded, 9.5)
    assert (built.tag, built.metadata, built.tensor) == (metadata.SESSION_END_INFO_TAG, expected, metadata.NULL_TENSOR)


def test_event_file_of_another_program_causes_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RecordedRun(tmp_path / "run", TensorBoardSink())
    run.log(1, {"loss": 0.5})
    run.deliver()
    (run.directory / "events.out.tfevents.1796094908.host.7.0").write_bytes(b"\0")
    run.end()
    (message,) = (record.getMessage() for record in caplog.records if "another program" in record.getMessage())
    assert "events.out.tfevents.1796094908.host.7.0 to the run directory" in message


def test_script_that_starts_again_reports_no_event_file_of_another_program(tmp_path: Path) -> None:
    script = """
import pte_tracking as pte
with pte.Run("result", sinks=["tensorboard"]) as run:
    run.log_metrics({"loss": 0.5}, step=1)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "another program" not in done.stderr
    assert "another program" not in (tmp_path / "result" / "delivery" / "log.txt").read_text()
    # The empty files exist that TensorBoard's own reader expects after the archiving.
    names = {path.name.rsplit(".", 1)[1] for path in (tmp_path / "result").glob("events.out.tfevents.*")}
    assert len(names) == 2


def parse_plugin_data(value: Any) -> Any:
    return plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)


def test_import_of_sink_omits_numpy_and_file_systems() -> None:
    code = "import sys, pte_backends.tensorboard._connection; print({'numpy', 'fsspec', 'boto3'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

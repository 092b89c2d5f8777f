"""Print the message for each feature whose package is not installed, as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.integrations.tensorboard import SummaryWriter
from pte_tracking.sinks import get_sink, installed_sinks

run = pte.Run(Path(sys.argv[1]) / "run", sinks=["json"])
report = extensions.LogReport()
writer = SummaryWriter(Path(sys.argv[1]) / "writer", sinks=[])
features: dict[str, Callable[[], object]] = {
    "log_image": lambda: run.log_image("a", torch.zeros(3, 4, 4), 1),
    "log_image of a file": lambda: run.log_image("a", b"\xff\xd8\xff\xe0 a file", 1),
    "log_histogram": lambda: run.log_histogram("a", torch.zeros(3), 1),
    "log_confusion_matrix": lambda: run.log_confusion_matrix("a", torch.ones(2, 2), 1),
    "PlotReport": lambda: extensions.PlotReport(["loss"], filename="loss.png"),
    "VariableStatisticsPlot": lambda: extensions.VariableStatisticsPlot(torch.zeros(2)),
    "ParameterHistogram": lambda: extensions.ParameterHistogram(torch.nn.Linear(1, 1)),
    "IgniteExtensionsManager": lambda: pte.IgniteExtensionsManager(object(), {}, 1),  # type: ignore[arg-type]
    "IgniteEvaluator": lambda: extensions.IgniteEvaluator(object(), [], {}),  # type: ignore[arg-type]
    "to_dataframe": lambda: report.to_dataframe(),
    "SummaryWriter.add_image": lambda: writer.add_image("a", torch.zeros(3, 4, 4), 1),
    "SummaryWriter.add_tensor": lambda: writer.add_tensor("a", torch.zeros(3), 1),
    "TrackingCallback": lambda: importlib.import_module("pte_tracking.integrations.transformers"),
    **{
        name: lambda name=name: pte.Run(Path(sys.argv[1]) / name, sinks=[name]).open()  # type: ignore[misc]
        for name in installed_sinks()
        if get_sink(name).requires
    },
}
messages = {}
for feature, call in features.items():
    try:
        call()
    except (ImportError, ValueError) as error:
        messages[feature] = f"{type(error).__name__}: {error}"
    except Exception as error:
        messages[feature] = f"unexpected {type(error).__name__}: {error}"
run.close()
json.dump(messages, sys.stdout)

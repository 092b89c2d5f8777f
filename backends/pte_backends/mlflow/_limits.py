"""Limits of MLflow on keys and batches."""

from __future__ import annotations

import dataclasses
import re

from pte_tracking.sinks import Limits

LIMITS = Limits(
    key_characters=re.compile(r"[\w\-./ :]"),
    key_length=250,
    key_is_path=True,
    batch_values=5000,  # the client sends them in requests of 1,000
    shared_names=("figure", "image"),  # both are files below images/
)
#: MLflow's store of files keeps each metric, parameter and tag in a file of its name.
FILE_STORE_LIMITS = dataclasses.replace(LIMITS, key_is_file=True)

"""Garbage collection of the delivery process."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import gc, sys
from pte_tracking._delivery import process

def run(self, directories):
    before = gc.get_stats()[1]["collections"]
    self.objects = [[] for _ in range(400_000)]
    print(gc.get_stats()[1]["collections"] - before <= 1)  # 50 by default

process.DeliveryService.run = run
sys.exit = lambda status: print(gc.get_freeze_count() > 1000)
process.main()
"""


def test_delivery_process_searches_new_objects_rarely_and_not_at_its_end() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "True"], done.stderr

"""Delivery processes of the test process."""

from __future__ import annotations

import psutil

from pte_tracking._delivery import shared_process


def living_deliveries() -> list[psutil.Process]:
    """Return the delivery processes that run."""
    children = psutil.Process().children()
    return [
        child
        for child in children
        if child.status() != psutil.STATUS_ZOMBIE and "pte_tracking._delivery.process" in " ".join(child.cmdline())
    ]


def end_deliveries() -> None:
    """End the delivery processes, so that the next run starts another one."""
    shared_process.leave_processes()
    for process in living_deliveries():
        process.kill()
        process.wait()

"""``python -m pte_tracking.cli``: the command ``pte-tracking``."""

from pte_tracking.cli import app

app()

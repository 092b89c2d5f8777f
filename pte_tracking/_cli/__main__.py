"""``python -m pte_tracking._cli``: the command ``pte-tracking``."""

from pte_tracking._cli import app

app()

"""Entry point of ``python -m pte_tracking._cli``, equivalent to ``pte-tracking``."""

from pte_tracking._cli import app

app()

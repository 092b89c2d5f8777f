"""Test suite for backends.

Inherit :class:`SinkContract` in a test module to run the suite that all included backends pass. It requires pytest.
One test also requires hypothesis and is skipped if hypothesis is not installed.
"""

from __future__ import annotations

from pte_tracking.testing._contract import SinkContract
from pte_tracking.testing._recorded_run import RecordedRun
from pte_tracking.testing._samples import Points

__all__ = ["Points", "RecordedRun", "SinkContract"]

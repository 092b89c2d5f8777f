"""Startup hook that arms the delivery processes of the crash trials. Python imports it from ``PYTHONPATH``."""

import os
import sys

if os.environ.get("PTE_TEST_KILL") and "pte_tracking._delivery.process" in " ".join(sys.orig_argv):
    import killing

    killing.arm(os.environ["PTE_TEST_KILL"])

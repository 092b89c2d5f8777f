"""Read by Python at its start, where this folder is on the path: arms delivery processes of the crash trials."""

import os
import sys

if os.environ.get("PTE_TEST_KILL") and "pte_tracking._delivery.process" in " ".join(sys.orig_argv):
    import killing

    killing.arm(os.environ["PTE_TEST_KILL"])

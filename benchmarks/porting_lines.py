"""Lines that a plain script needs for tracking, validation, snapshots, and resume.

``python benchmarks/porting_lines.py``

Counts the lines that are added or changed in examples/porting/plain.py, without blank lines and the docstring.
"""

from __future__ import annotations

import difflib
from pathlib import Path

BENCHMARKS = Path(__file__).parent
EXAMPLES = BENCHMARKS.parent / "examples" / "porting"
PORTS = {
    "pte_tracking": EXAMPLES / "tracked.py",
    "Accelerate": BENCHMARKS / "porting" / "with_accelerate.py",
    "Lightning": BENCHMARKS / "porting" / "with_lightning.py",
}


def count_new_lines(plain: Path, port: Path) -> int:
    """Return the number of lines of a port that the plain script does not contain."""
    changes = difflib.ndiff(*(path.read_text().splitlines()[1:] for path in (plain, port)))
    return len([line for line in changes if line.startswith("+ ") and line.strip() != "+"])


if __name__ == "__main__":
    for library, port in PORTS.items():
        print(f"{library}: {count_new_lines(EXAMPLES / 'plain.py', port)}")

"""Print the requirements of a wheel, with those of TensorBoard and without torch: ``list_requirements.py WHEEL``."""

from __future__ import annotations

import email
import re
import sys
import zipfile


def list_requirements(wheel: str) -> list[str]:
    """Return the requirements without their markers."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    requirements = []
    for line in metadata.get_all("Requires-Dist", []):
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        is_wanted = not marker or re.fullmatch(r"extra == ['\"]tensorboard['\"]", marker)
        if is_wanted and not re.match(r"torch\b", requirement):
            requirements.append(requirement)
    return requirements


if __name__ == "__main__":
    print("\n".join(list_requirements(sys.argv[1])))

"""Operations that differ between Linux, macOS, and Windows.

Code elsewhere in the package uses no function that only some systems have. ``mypy --platform win32`` checks this.
"""

"""Capture, write, verify, select, and restore snapshots."""

"""Resumable data loaders and batch conversion."""

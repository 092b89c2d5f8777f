"""Adapters for the training loops and writers of other libraries."""

"""Adapters for the training loops of other libraries, one module per library.

Each adapter writes a :class:`~pte_tracking.Run`. The modules import their library, so import the module that you need.
"""

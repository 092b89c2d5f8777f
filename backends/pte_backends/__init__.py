"""Included backends of pte_tracking, one package each."""

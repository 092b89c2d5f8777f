"""CSV files with one row per report, for spreadsheets, pandas, and R."""

from pte_backends.csv._sink import CsvSink

__all__ = ["CsvSink"]

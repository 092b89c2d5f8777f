"""The record of a run and its way to the tracking backends; knows nothing above it and imports no torch."""

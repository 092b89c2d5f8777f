"""Run directory on disk: events, journal, manifest, locks, and files. Imports nothing else of the package."""

"""Changing codes in bulk: plans are reviewed, runs are journaled, proved and reversible."""

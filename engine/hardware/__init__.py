"""The processors that a run computes on: how many threads, and how they share the cores with whatever else runs."""

"""Prefect tasks: the verbs that the flows chain."""

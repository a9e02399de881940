"""Prefect flows, one file each; every one reads as its own summary."""

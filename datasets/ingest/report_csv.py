"""The data report as a tidy CSV.

One line a number, with the columns section, name, split and value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

_Line = tuple[str, str, str, float]


def tabulate_report(report: Mapping[str, Any]) -> str:
    """Write the report's numbers line by line.

    Args:
        report: what `describe_data` collected.
    Returns:
        CSV with a header; the split is empty where a number counts all of the table's rows or all
        that are used.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("section", "name", "split", "value"))
    writer.writerows(_tabulate_table(report))
    for name, feature in report["features"].items():
        writer.writerows(_tabulate_feature(name, feature))
    return text.getvalue()


def _tabulate_table(report: Mapping[str, Any]) -> Iterator[_Line]:
    yield "rows", "table", "", report["rows"]
    yield from _by_split("rows", "used", report["splits"])
    yield "rows", "quarantined", "", report["quarantined"]["rows"]
    for reason, count in report["quarantined"]["reasons"].items():
        yield "quarantine", reason, "", count
    yield "duplicates", "rows", "", report["duplicate_rows"]
    for name, count in report["rows_in_two_splits"].items():
        yield "leakage", name, "", count
    for value, counts in report.get("stratify", {}).items():
        yield from _by_split("stratify", value, counts)
    for name, count in report.get("entities", {}).items():
        yield "entities", name, "", count
    if "group" in report:
        yield from _by_split("group", "groups", report["group"]["groups"])
        yield "group", "rows of the largest", "", report["group"]["largest"]
        yield "group", "rows of none", "", report["group"]["rows_of_none"]


def _tabulate_feature(name: str, feature: Mapping[str, Any]) -> Iterator[_Line]:
    for column, count in feature["missing"].items():
        yield "missing", column, "", count
    for label, counts in feature.get("classes", {}).items():
        yield from _by_split("classes", f"{name}/{label}", counts)
    yield from _by_split("distinct", name, feature.get("distinct", {}))
    if "sizes" in feature:
        sizes = feature["sizes"]
        yield "images", f"{name}/distinct images", "", feature["distinct_images"]
        yield "images", f"{name}/distinct sizes", "", sizes["distinct"]
        for side in ("height", "width"):
            for statistic in ("min", "median", "max"):
                yield "images", f"{name}/{side}/{statistic}", "", sizes[side][statistic]
    for what, count in feature.get("pictures", {}).items():
        yield "images", f"{name}/{what.replace('_', ' ')}", "", count
    if "points" in feature:
        yield "points", f"{name}/points", "", feature["points"]
        yield "points", f"{name}/points outside", "", feature["points_outside"]
        yield "points", f"{name}/rows with points outside", "", feature["rows_with_points_outside"]
    if "texts" in feature:
        yield "texts", f"{name}/vocabulary", "", feature["vocabulary"]
        for split, counts in feature["texts"].items():
            for what, value in counts.items():
                yield "texts", f"{name}/{what.replace('_', ' ')}", split, value
    for split, ranges in {
        "": feature.get("ranges", {}),
        **feature.get("ranges_by_split", {}),
    }.items():
        for column, statistics in ranges.items():
            for statistic, value in statistics.items():
                yield "numbers", f"{name}/{column}/{statistic}", split, value


def _by_split(section: str, name: str, counts: Mapping[str, int]) -> Iterator[_Line]:
    for split, count in counts.items():
        yield section, name, split, count

"""What was measured on the way to a strategy, plain data -> lines for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(measured: Mapping[str, Any]) -> list[str]:
    """Tables of the taps and of the ways, the scenario and the cross-validated accuracy."""
    found = [_facts(data)] if (data := measured.get("data")) else []
    found += _taps(measured.get("taps", []))
    if table := measured.get("table"):
        found += _ways(table)
    if hopes := measured.get("hopes"):
        ways = ", ".join(f"{way} {accuracy:.4f}" for way, accuracy in hopes.items())
        found.append(f"hoped for in the time that was left: {ways}")
    if scenario := measured.get("scenario"):
        found.append(f"chosen: {measured['chosen']}; {measured['reason']}")
        found.append(scenario["reason"])
    if judged := measured.get("cross_validated"):
        low, high = judged["interval"]
        found.append(
            f"cross-validated accuracy of heads on frozen features {judged['accuracy']:.4f} (95 % "
            f"interval {low:.4f} to {high:.4f}, {judged['images']:,} images, each judged by "
            "heads that never saw it)"
        )
        if alone := judged.get("alone"):
            found.append(f"images alone in their class, of which nothing is said: {alone:,}")
    return found


def _facts(data: Mapping[str, Any]) -> str:
    return (
        f"{data['images']:,} training images in {data['classes']} classes, the largest "
        f"{data['largest_to_smallest_class']:.1f} times the smallest; median {data['width']} x "
        f"{data['height']} px"
    )


def _taps(taps: list[Mapping[str, Any]]) -> list[str]:
    if not taps:
        return []
    rows = ["features of          numbers  linear head  nearest images    loss"]
    for each in taps:
        grid = "" if each["side"] == 1 else f", {each['side']} x {each['side']} fields"
        name = f"stage {each['stage']}{grid}"
        rows.append(
            f"{name:<20} {each['numbers']:>7,} {each['linear']:>12.4f} {each['neighbours']:>17.4f} "
            f"{each['loss']:>7.4f}" + ("" if each.get("followed", True) else " or less")
        )
    return rows


def _ways(table: list[Mapping[str, Any]]) -> list[str]:
    rows = ["way       length  epochs  seconds  predicted  validation accuracy  gain over features"]
    for each in table:
        gain = f"{each['gain']:+.4f} +- {each['noise']:.4f}" if each["length"] != "solved" else ""
        whole = f"{each['predicted_seconds']:.1f}" if each.get("predicted_seconds") else ""
        rows.append(
            f"{each['way']:<9} {each['length']:<7} {each['epochs']:>6,} {each['seconds']:>8.1f} "
            f"{whole:>10} {each['accuracy']:>20.4f}  {gain}".rstrip()
        )
    return rows

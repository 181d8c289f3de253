"""What was measured -> which of tutorial 3's four scenarios this is, and why, in words."""

from __future__ import annotations

import statistics
from typing import Any

from residua.data.prepare import Prepared

LARGE = 1_000  # training images: from here on all of a network can be taught something

NAMES = {
    (False, True): (1, "small and similar: keep the network, learn a head"),
    (False, False): (2, "small and different: keep the first stages, learn the rest"),
    (True, False): (3, "large and different: learn everything from the beginning"),
    (True, True): (4, "large and similar: start from the weights, learn everything"),
}


def facts_of(prepared: Prepared) -> dict[str, Any]:
    """What the data is: training images, classes, their balance, the images' median size."""
    counts = [count for count in prepared.counts("train") if count]
    headers = [header for at in prepared.splits["train"] if (header := prepared.headers[at])]
    return {
        "images": sum(counts),
        "classes": len(prepared.dataset.classes),
        "largest_to_smallest_class": max(counts) / min(counts),
        "width": statistics.median_low(header.width for header in headers),
        "height": statistics.median_low(header.height for header in headers),
    }


def scenario_of(
    prepared: Prepared, taps: list[dict[str, Any]], table: list[dict[str, Any]]
) -> dict[str, Any]:
    """number, name, large, similar and the reason, as plain data.

    Similar means: what the frozen features show beats what a network learnt from scratch. Where
    none was tried, similar and number are None: the stage that separates the classes best tells too
    little.
    """
    images = len(prepared.splits["train"])
    large = images >= LARGE
    best = min(taps, key=lambda each: each["loss"])
    scratch = [each for each in table if each["way"] == "scratch"]
    solved = max((each["accuracy"] for each in table if each["way"] == "features"), default=0.0)
    facts: dict[str, Any] = {"large": large}
    if scratch:
        furthest = max(scratch, key=lambda each: float(each["accuracy"]))
        similar = solved >= furthest["accuracy"]
        number, name = NAMES[large, similar]
        facts |= {"number": number, "name": name, "similar": similar}
        said = (
            f"frozen features give {solved:.3f}, a network from scratch "
            f"{furthest['accuracy']:.3f} after {furthest['seconds']:.0f} s: scenario {number}, "
            f"{name}"
        )
    else:
        numbers = [NAMES[large, similar][0] for similar in (True, False)]
        last = max(each["stage"] for each in taps)
        facts |= {"number": None, "name": None, "similar": None}
        said = (
            f"stage {best['stage']} of {last} separates the classes best; none learnt from "
            f"scratch, so scenario {min(numbers)} or {max(numbers)}"
        )
    return facts | {"reason": f"{images:,} training images; {said}"}

"""Train, pool, measure and store every row of the catalogue, made narrow.

    python benchmarks/every_network.py [NAME ...]

The tests run the same checks on one row of each kind. Prints a line per row; exits with 1 if a
check fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pytest
import torch
from references import network_checks as checks

from residua.networks.zoo import catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all if none is given")
    names = parser.parse_args().names or list(catalogue.ROWS)
    torch.set_num_threads(1)
    passed = [check(name) for name in names]
    sys.exit(0 if all(passed) else 1)


def check(name: str) -> bool:
    """Print the network's line; whether all checks pass."""
    try:
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            spec = checks.narrow_spec(name, patch)
            checks.check_training(spec)
            checks.check_head(spec)
            checks.check_smallest_image(spec)
            checks.check_weights(spec, Path(folder))
    except Exception:
        traceback.print_exc()
        print(f"{name}: FAILED", flush=True)
        return False
    print(f"{name}: passed", flush=True)
    return True


if __name__ == "__main__":
    main()

"""Every published network, random weights under its published keys: is the file recognised, and how
far are its logits from an independent reading?

    python benchmarks/published_files.py [NAME ...]

The tests do the same with one network of each kind. Prints a line per network; exits with 1 if one
has other parameters than published, is not recognised or beyond the bound.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from references import torch_networks
from references.published import BOUND, PUBLISHED, logits_distance, parameters
from references.torch_files import safetensors

from residua.errors import ResiduaError
from residua.weights.load import read_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all if none is given")
    names = parser.parse_args().names or list(PUBLISHED)
    torch.set_num_threads(1)
    failed = [name for name in names if not check(name)]
    sys.exit(1 if failed else 0)


def check(name: str) -> bool:
    """Print the network's line; whether all is as it should be."""
    state = torch_networks.state_dict(name, classes=5)
    counted = parameters(torch_networks.shapes(name))
    with tempfile.TemporaryDirectory() as folder:
        try:
            weights = read_file(safetensors(state, Path(folder) / "any"))
        except ResiduaError as error:
            print(f"{name:<18} FAILED: {error}", flush=True)
            return False
        distance = logits_distance(name, state, weights)
    good = counted == PUBLISHED[name] and distance < BOUND
    found = weights.metadata.network.name
    line = f"{name:<18} {counted:>11,} parameters, read as {found}, distance {distance:.1e}"
    print(line if good else f"{line}  <- FAILED", flush=True)
    return good


if __name__ == "__main__":
    main()

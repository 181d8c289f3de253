"""How far residua's networks are from real Keras, in each form of file, and with planted errors.

    python benchmarks/keras_parity.py > benchmarks/results/keras-parity-float32.txt

Random weights with non-trivial BatchNorm statistics. Distances are the largest difference in units
of max(1, the largest reference), float32: of the logits and of the worst stage. Bound: 1e-4; each
planted error must exceed 20 times that, 2e-3, in the logits.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras
import torch
from references import keras_files, keras_networks, parity

from residua.weights.convert import convert
from residua.weights.load import Weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all if none is named")
    names = parser.parse_args().names or [*keras_networks.NAMES, *parity.TWINS]
    torch.set_num_threads(1)
    print(
        f"{datetime.date.today()}, {platform.machine()}, 1 thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}, keras {keras.__version__} on "
        "torch"
    )
    print(f"bound {parity.BOUND:g}; planted errors must exceed {20 * parity.BOUND:g}\n")
    good = True
    for name in dict.fromkeys(names):
        good = check(name) and good
    print("\nall within the bound, all planted errors beyond 20 times it" if good else "\nFAILED")
    sys.exit(0 if good else 1)


def check(name: str) -> bool:
    """Print a network's lines; whether all is as it should be."""
    true = parity.reference(name, start=3)
    good, weights = True, None
    print(f"{name} at {parity.side(name)} px")
    with tempfile.TemporaryDirectory() as folder:
        for form in parity.forms(name):
            path = keras_files.write(true.model, Path(folder) / name, form)
            weights = parity.read(path, name)
            logits, *stages = parity.distances(parity.network(weights), true)
            worst = max(logits, *stages)
            good = good and worst < parity.BOUND
            mark = "" if worst < parity.BOUND else "  <- beyond the bound"
            print(f"  {form:<17} logits {logits:.1e}, worst stage {max(stages):.1e}{mark}")
            path.unlink()
    assert weights is not None
    for error, distance in parity.errors(weights, true):
        seen = distance > 20 * parity.BOUND
        good = good and seen
        print(f"  planted {error:<9} {distance:.1e}{'' if seen else '  <- not seen'}")
    if name != "tutorial_resnet18":  # Keras lays a subclass out by its Python attributes
        same = comes_back(true, weights)
        good = good and same
        print(f"  written and loaded by Keras: {'the same logits' if same else '<- OTHER LOGITS'}")
    sys.stdout.flush()
    return good


def comes_back(true: parity.Reference, weights: Weights) -> bool:
    """Whether Keras computes the same bits from a .weights.h5 that residua writes."""
    name = parity.ours(true.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.weights.h5"
        convert(weights, path)
        model = keras_networks.build(name, 7, parity.side(name))
        model.load_weights(path)
    logits, _ = keras_networks.outputs(name, model, true.images)
    return bool((logits == true.logits).all())


if __name__ == "__main__":
    main()

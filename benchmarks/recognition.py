"""Whether each published PyTorch file is recognised by its names and shapes alone.

    python benchmarks/recognition.py

torchvision's, timm's and pytorch_resnet_cifar10's files in full size, without memory for their
numbers; the densenets in torchvision's spelling of 2017 too.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from references import torch_networks
from references.torch_files import AUXILIARY, weightless

from residua.errors import ResiduaError
from residua.weights.formats.raw import RawWeights
from residua.weights.load import recognise


def main() -> None:
    good = True
    for name in torch_networks.NETWORKS:
        raw = weightless(name)
        good = check(name, raw) and good
        if name.startswith("densenet"):
            good = check(f"{name} of 2017", old_densenet(raw)) and good
    print("\nall recognised" if good else "\nFAILED")
    sys.exit(0 if good else 1)


def old_densenet(raw: RawWeights) -> RawWeights:
    """The same layers in the spelling of 2017."""
    keys = {f"{layer}.{part}": (layer, part) for layer in raw.layers for part in raw.layers[layer]}
    layers: dict[str, dict[str, object]] = {}
    for old, (layer, part) in torch_networks.old_densenet_keys(keys).items():
        layers.setdefault(old.rpartition(".")[0], {})[part] = raw.layers[layer][part]
    return replace(raw, layers=layers)


def check(label: str, raw: RawWeights) -> bool:
    """Print a file's line; whether every layer is assigned once in the right network."""
    try:
        match = recognise(raw, None)
    except ResiduaError as error:
        print(f"{label:<24} {error}")
        return False
    read = [layer for layers in match.names.values() for layer in layers]
    wanted = {layer for layer in raw.layers if not layer.startswith(AUXILIARY)}
    good = len(read) == len(set(read)) and set(read) == wanted
    good = good and match.network == raw.path.name.removeprefix("timm_")
    print(f"{label:<24} {match.network}, {len(read)} layers{'' if good else '  <- wrong'}")
    return good


if __name__ == "__main__":
    main()

"""Seconds to build and load ResNet-50 from each form of file, against Keras loading its own.

    python benchmarks/loading.py > benchmarks/results/loading-resnet50.txt

Random weights; each file is read once before, so that it lies in the page cache. In each round
every form is loaded once, in turn; medians. What is timed ends with a network in evaluation mode,
ready to compute: residua recognises the network by itself, from the content of the file.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras
import torch
from references import keras_files, keras_networks, torch_networks
from safetensors.torch import save_file

from residua.weights.convert import convert
from residua.weights.load import read_file
from residua.weights.network import build_network

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        legs = prepared(Path(name))
        for load in legs.values():
            load()
        seconds: dict[str, list[float]] = {name: [] for name in legs}
        for _ in range(rounds):
            for leg, load in legs.items():
                gc.collect()
                began = time.perf_counter()
                load()
                seconds[leg].append(time.perf_counter() - began)
    print(
        f"{datetime.date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, keras "
        f"{keras.__version__} on torch; median of {rounds} (smallest to largest), interleaved\n"
    )
    base = statistics.median(seconds["Keras builds and loads its .weights.h5"])
    for leg, found in seconds.items():
        middle = statistics.median(found)
        print(
            f"{leg:<46} {middle:6.3f} s ({min(found):.3f} to {max(found):.3f}), "
            f"{base / middle:5.1f} times as fast as Keras' .weights.h5"
        )


def prepared(folder: Path) -> dict[str, Callable[[], object]]:
    """The files, and what loads each."""
    model = keras_networks.build("keras_resnet50")
    keras_networks.randomise(model, seed=0)
    forms = {form: keras_files.write(model, folder / form, form) for form in keras_files.FORMS}
    tutorial = keras_networks.build("tutorial_resnet50")
    old = keras_files.write(
        tutorial,
        folder / "old",
        "keras1_weights",
        keras_files.old_resnet50_names(tutorial),
    )
    state = torch_networks.state_dict("resnet50")
    torch.save(state, folder / "resnet50.pth")
    save_file(state, folder / "theirs.safetensors")
    convert(read_file(folder / "resnet50.pth"), folder / "ours.safetensors")

    def ours(path: Path) -> Callable[[], object]:
        return lambda: build_network(read_file(path), CPU)

    def weights_alone() -> object:
        keras.utils.clear_session()
        fresh = keras.applications.ResNet50(weights=None)
        fresh.load_weights(forms["keras3_weights"])
        return fresh

    return {
        "residua, its own .safetensors": ours(folder / "ours.safetensors"),
        "residua, torchvision's .pth": ours(folder / "resnet50.pth"),
        "residua, torchvision's names in .safetensors": ours(folder / "theirs.safetensors"),
        "residua, Keras 3 .weights.h5": ours(forms["keras3_weights"]),
        "residua, Keras 3 .keras": ours(forms["keras3_whole"]),
        "residua, Keras 3 whole-model .h5": ours(forms["keras3_legacy_h5"]),
        "residua, Keras 2 .h5 of 2018": ours(forms["keras2_weights"]),
        "residua, Keras 1 .h5 of 2015": ours(old),
        "Keras builds and loads its .weights.h5": weights_alone,
        "Keras loads its .keras": lambda: keras.models.load_model(
            forms["keras3_whole"], compile=False
        ),
        "Keras loads its whole-model .h5": lambda: keras.models.load_model(
            forms["keras3_legacy_h5"], compile=False
        ),
    }


if __name__ == "__main__":
    main()

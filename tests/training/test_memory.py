"""The memory of a training step, and the batch size that fits into what is free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.networks.layers import BatchNorm, Convolution, Dropout
from residua.networks.zoo import catalogue
from residua.system.console import Console
from residua.training.initial import initial_network
from residua.training.memory import (
    COPIES,
    OVERHEAD,
    SHARE,
    SMALLEST_BATCH,
    saved_bytes,
    with_fitting_batch,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def prepared_with(shapes: Path, **settings: object) -> Prepared:
    values = {"data.path": str(shapes), "preprocessing.size": 16} | settings
    return prepare(with_settings(Config(), values), Console(quiet=True))


def test_what_a_layer_reads_is_saved_once_and_parameters_are_not() -> None:
    images, maps = 2 * 3 * 10 * 10 * 4, 2 * 8 * 10 * 10 * 4  # bytes
    network = nn.Sequential(Convolution(3, 8, 3), nn.ReLU(inplace=True), Convolution(8, 8, 3))
    assert saved_bytes(network, torch.zeros(2, 3, 10, 10), "fp32") == images + maps


def test_measuring_changes_no_network_and_draws_no_number() -> None:
    network = nn.Sequential(Convolution(3, 4, 3), BatchNorm(4), Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    saved_bytes(network, images, "fp32")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_frozen_stages_save_nothing() -> None:
    images, sizes = torch.zeros(2, 3, 32, 32), []
    for stages in range(3):
        network = catalogue.build("cifar_resnet14", seed=0)
        network.stem.requires_grad_(stages == 0)
        for stage in list(network.stages)[:stages]:
            stage.requires_grad_(False)
        sizes.append(saved_bytes(network, images, "fp32"))
    assert sizes[0] > sizes[1] > sizes[2] > 0


PEAK = """
import re, torch
from pathlib import Path
from residua.networks.zoo import catalogue
from residua.training.memory import saved_bytes
def resident(name):  # VmRSS: now, VmHWM: at most; kB
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.set_num_threads(1)
network = catalogue.build("cifar_resnet20", seed=0)
image = saved_bytes(network, torch.zeros(2, 3, 32, 32), "fp32") / 2
before = resident("VmRSS")
network(torch.zeros(256, 3, 32, 32)).sum().backward()
print((resident("VmHWM") - before) / (256 * image))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_step_takes_about_what_is_expected() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 0.7 < float(done.stdout) < OVERHEAD * 1.2


def bytes_for(prepared: Prepared, network: nn.Module, batch: int) -> int:
    """That must be free for a batch."""
    images = prepared.training_batches().plain(prepared.training_members[:2])
    image = saved_bytes(network, images, prepared.config.training.precision) / 2
    fixed = COPIES * sum(parameter.nbytes for parameter in network.parameters())
    return int((OVERHEAD * image * batch + fixed) / SHARE) + 1


def test_the_batch_is_halved_until_it_fits(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepared_with(shapes)
    network = initial_network(prepared.config, None, prepared.device)
    batch = min(prepared.config.training.batch_size, len(prepared.splits["train"]))
    rate = prepared.config.optimization.learning_rate
    enough = bytes_for(prepared, network, batch)
    assert with_fitting_batch(network, prepared, Console(), enough) is prepared
    smaller = with_fitting_batch(network, prepared, Console(), enough - 2)
    assert smaller.config.training.batch_size == -(-batch // 2)
    assert smaller.config.optimization.learning_rate == pytest.approx(rate * -(-batch // 2) / batch)
    reasons = {choice.setting: choice.reason for choice in smaller.choices}
    assert f"GB for {batch} images in a step" in reasons["training.batch_size"]
    assert f"batch size {-(-batch // 2)}: " in capsys.readouterr().err
    least = with_fitting_batch(network, prepared, Console(), 0)
    assert least.config.training.batch_size == SMALLEST_BATCH


def test_an_explicit_batch_size_stays_with_a_warning(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepared_with(shapes, **{"training.batch_size": 16})
    network = initial_network(prepared.config, None, prepared.device)
    assert with_fitting_batch(network, prepared, Console(), 1000) is prepared
    assert "may run out of memory" in capsys.readouterr().err


def test_an_explicit_learning_rate_stays(shapes: Path) -> None:
    prepared = prepared_with(shapes, **{"optimization.learning_rate": 0.3})
    network = initial_network(prepared.config, None, prepared.device)
    smaller = with_fitting_batch(network, prepared, Console(quiet=True), 1000)
    assert smaller.config.training.batch_size < prepared.config.training.batch_size
    assert smaller.config.optimization.learning_rate == 0.3

"""A network of the user's own: trained, resumed and loaded, and never imported unasked."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from references.command_line import residua as command
from torch import nn

import residua
from residua.errors import ResiduaError
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.system.signals import Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")
CODE = """
import signal
from torch import nn

STOP = []


class Net(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.Dropout(0.3))
        self.tied = self.body[0]
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        if self.training and STOP and STOP.pop():
            signal.raise_signal(signal.SIGTERM)
        y = self.body(x).relu()
        return self.head(y.view(len(y), 8, -1).mean(2))


def fails(classes):
    raise KeyError("no such table")


def text(classes):
    return "resnet18"


def single(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(1))
"""
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 12, "test_fraction": 0.2, "quiet": True}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with the module own_nets."""
    place = tmp_path_factory.mktemp("own")
    (place / "own_nets.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place
    sys.modules.pop("own_nets", None)


@pytest.fixture(scope="module")
def run(folder: Path, shapes: Path) -> residua.Run:
    return residua.train(shapes, model="own_nets:Net", out=folder / "run", **QUICK)


def test_everything_works_with_it(run: residua.Run) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    assert run.config.network.name == "own_nets:Net"
    assert len(run.history) == 2
    accuracy = run.evaluate().metrics.accuracy
    assert residua.evaluate(str(run.path), model="own_nets:Net").metrics.accuracy == accuracy
    (prediction,) = run.predict(image)
    logits = run.network()(run.transform(image)[None])
    best = torch.softmax(logits, 1).max().item()
    assert prediction.top[0][1] == pytest.approx(best, abs=1e-6)
    features = residua.features(run, image).values
    assert np.allclose(features, logits.detach().numpy(), atol=1e-5)
    with pytest.raises(ResiduaError, match=r"own_nets:Net, a network of your own.*be joined"):
        open_weights(f"imagenet+{run.path}", None, Console(quiet=True))
    with pytest.raises(ResiduaError, match="is a network of your own, whose feature maps"):
        run.explain(image)
    report = (run.path / "report.html").read_text("utf-8")
    assert f"{8 * 27 + 8 + 16 + 27:,}" in report  # parameters


def test_a_file_cannot_have_its_code_imported(run: residua.Run, shapes: Path) -> None:
    sys.modules.pop("own_nets")
    for attempt in (
        lambda: residua.evaluate(str(run.path)),
        lambda: residua.predict(str(run.path), np.zeros((16, 16, 3), np.uint8)),
        lambda: residua.predict(run.folder.weights, np.zeros((16, 16, 3), np.uint8)),
        lambda: residua.load(run.path).network(),
        lambda: residua.train(shapes, recipe=run.path / "config.yaml", quiet=True),
        lambda: residua.build(weights=run.path),
    ):
        with pytest.raises(ResiduaError, match=r"code outside residua.*--model own_nets:Net"):
            attempt()
    assert "own_nets" not in sys.modules
    assert residua.load(run.path, model="own_nets:Net").network() is not None


@pytest.mark.slow
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    run: residua.Run, shapes: Path, folder: Path
) -> None:
    state = torch.get_rng_state()
    import own_nets  # type: ignore[import-not-found]

    own_nets.STOP[:] = [True, False, False, False, False]  # in the fifth step
    with pytest.raises(Interrupted):
        residua.train(shapes, model=own_nets.Net, out=folder / "stopped", **QUICK)
    with pytest.raises(ResiduaError, match=r"code outside residua.*--model own_nets:Net"):
        residua.resume(folder / "stopped")
    resumed = residua.resume(folder / "stopped", quiet=True, model="own_nets:Net")
    contents = [one.network().state_dict() for one in (run, resumed)]
    assert all(torch.equal(contents[0][name], contents[1][name]) for name in contents[0])
    assert torch.equal(torch.get_rng_state(), state)  # dropout has a generator of its own


@pytest.mark.slow
def test_of_a_module_only_the_state_dict_is_saved(shapes: Path, folder: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    module[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.warns(UserWarning, match="only the state dict was saved"):
        run = residua.train(shapes, model=module, out=folder / "module", **QUICK)
    assert all(torch.equal(before[name], module.state_dict()[name]) for name in before)
    trained = run.network().state_dict()
    assert torch.equal(trained["stages.0.0.weight"], before["0.weight"])  # frozen
    assert not torch.equal(trained["stages.0.3.weight"], before["3.weight"])
    with pytest.raises(ResiduaError, match="give the module again"):
        residua.evaluate(str(run.path))
    assert residua.evaluate(str(run.path), model=module).metrics.images == 12
    with pytest.raises(ResiduaError, match=r"lacks|contains|is float32"):
        residua.evaluate(str(run.path), model=nn.Linear(3, 3))


@pytest.mark.slow
def test_the_command_line_imports_from_the_working_directory(shapes: Path) -> None:
    sys.modules.pop("own_nets", None)
    options = ("--epochs", "1", "--batch-size", "30", "--out", "cli")
    done = command("train", str(shapes), "--model", "own_nets:Net", *options)
    assert done.status == 0, done.stderr
    assert command("evaluate", "cli", "--model", "own_nets:Net").status == 0
    sys.modules.pop("own_nets")
    refused = command("evaluate", "cli")
    assert (refused.status, "own_nets" in sys.modules) == (1, False)
    assert "--model own_nets:Net" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("own_nets:missing", {}, "cannot be imported: AttributeError"),
        ("no_such_module:Net", {}, "cannot be imported: ModuleNotFoundError"),
        ("own_nets:fails", {}, "for 3 classes failed: KeyError: 'no such table'"),
        ("own_nets:text", {}, "returned str, expected an nn.Module"),
        ("own_nets:STOP", {}, "is list, expected a function"),
        ("own_nets:Net", {"transfer": "features", "weights": "imagenet"}, "omit the option"),
        ("own_nets:Net", {"freeze": 1}, "omit the option"),
        ("own_nets:Net", {"head": "linear"}, "replaces no layers: omit head"),
        ("own_nets:Net", {"settings": {"network.ordering": "e"}}, "omit ordering"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(768, 5)),
            {},
            r"\[1, 5\]; expected \[1, 3\]",
        ),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), {}, "has no parameters"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), {}, "weight has no shape yet"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 3).double()), {}, "is torch.float64, expected"),
        (nn.LSTM(3, 3), {}, "failed: "),
        (7, {}, "expected a name, MODULE:FUNCTION"),
    ],
)
def test_what_cannot_be_a_classifier_is_refused(
    shapes: Path, folder: Path, model: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResiduaError, match=message):
        residua.train(shapes, model=model, out=folder / "refused", quiet=True, **options)
    assert not (folder / "refused").exists()


def test_timm_is_named_where_it_is_missing(shapes: Path) -> None:
    try:
        import timm  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(ResiduaError, match="pip install timm"):
            residua.train(shapes, model="timm:resnet18", quiet=True)


@pytest.mark.slow
def test_the_estimator_takes_one_and_can_be_pickled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    import own_nets

    images = np.repeat(np.arange(8, dtype=np.uint8) * 30, 16 * 16 * 3).reshape(8, 16, 16, 3)
    fitted = residua.ImageClassifier(model=own_nets.Net, epochs=1).fit(images, [0, 1] * 4)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(images), fitted.predict_proba(images))

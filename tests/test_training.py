"""Training as a user meets it: real runs on small real images, real processes, real signals."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import residua
from residua.config.schema import Optimization
from residua.errors import ResiduaError
from residua.training.optimization import Average, balanced_weights, optimizer_for, rate_at
from residua.training.validation import judge_for

QUICK = {"training.precise_bn_images": 128}


def write_shapes(folder: Path, count: int, size: int = 16, classes: int = 3) -> Path:
    """Class folders of images that a network can tell apart: bright squares at other places."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        for number in range(count):
            pixels = generator.integers(0, 90, (size, size, 3), dtype=np.uint8)
            at = 2 + label * (size - 6) // classes
            pixels[at : at + 4, at : at + 4, label % 3] = 255
            file = folder / f"class{label}" / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 20)


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """One finished run that several tests look at."""
    return residua.train(
        shapes,
        epochs=6,
        test_fraction=0.2,
        out=tmp_path_factory.mktemp("runs") / "shapes",
        settings={**QUICK, "training.curve_test": True, "training.save_every": 2},
        quiet=True,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("best.safetensors", "last.safetensors")
    }


def history_without_clocks(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {key: row[key] for key in row if key not in ("images_per_second", "seconds")}
        for row in rows
    ]


def test_it_learns_and_leaves_a_whole_run_folder(run: residua.Run) -> None:
    assert run.evaluate().scores.accuracy > 0.8
    for name in (
        "config.yaml",
        "classes.json",
        "split.csv",
        "unreadable.csv",
        "preprocessing.json",
        "environment.json",
        "choices.json",
        "log.jsonl",
        "history.csv",
        "best.safetensors",
        "last.safetensors",
        "state.safetensors",
        "report.html",
    ):
        assert (run.path / name).is_file(), name
    assert sorted(each.name for each in run.path.glob("epoch-*")) == [
        f"epoch-{epoch:04}.safetensors" for epoch in (2, 4, 6)
    ]
    assert "auto" not in (run.path / "config.yaml").read_text()
    choices = {
        each["setting"]: each for each in json.loads((run.path / "choices.json").read_text())
    }
    assert choices["preprocessing.size"]["value"] == run.config.preprocessing.size
    assert all(each["reason"] for each in choices.values())
    assert not [each for each in run.path.rglob(".*") if each.name != ".lock"]
    assert residua.load(run.path).config == run.config


def test_history_holds_what_was_measured(run: residua.Run) -> None:
    rows = run.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(0 <= row["test_accuracy"] <= 1 for row in rows)
    best = max(range(6), key=lambda each: (rows[each]["val_accuracy"], -rows[each]["val_loss"]))
    logged = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert logged[-1] == {"event": "end", "step": logged[-1]["step"], "best_epoch": best + 1}
    # the kept weights are those that were validated: judged again, they give that very accuracy
    from residua.evaluation.evaluate import evaluate_run
    from residua.system.console import Console

    everything = evaluate_run(run.folder, run.config.data.path, Console(quiet=True))
    wanted = {row.path for row in run.folder.read_split() if row.split == "validation"}
    right = [row[4] for row in everything.rows() if row[0] in wanted]
    assert np.mean(right) == pytest.approx(rows[best]["val_accuracy"], abs=0.1)  # fp32 for bf16


def test_same_seed_same_weights_other_seed_others(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    for name, seed in (("again", 0), ("other", 1)):
        residua.train(
            shapes,
            epochs=6,
            test_fraction=0.2,
            seed=seed,
            out=tmp_path / name,
            settings={**QUICK, "training.curve_test": True},
            quiet=True,
        )
    first = load_file(run.path / "last.safetensors")
    again = load_file(tmp_path / "again" / "last.safetensors")
    other = load_file(tmp_path / "other" / "last.safetensors")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_evaluating_and_predicting_change_no_weights(run: residua.Run, shapes: Path) -> None:
    before = digests(run.path)
    run.evaluate()
    run.evaluate(shapes)
    rows = run.predict(shapes / "class1" / "000.png", shapes / "class1")
    assert digests(run.path) == before
    assert len(rows) == 21
    assert sum(chance for _, chance in rows[0].top) == pytest.approx(1)
    assert rows[0].top == rows[1].top  # the same file, named and found


def test_prediction_equals_evaluation(run: residua.Run, shapes: Path) -> None:
    """One preprocessing: a file predicted alone gives what it gave among others."""
    judged = run.evaluate()
    for path, _, predicted, probability, _ in judged.rows():
        (row,) = run.predict(shapes / path, top=1)
        assert row.top[0][0] == predicted
        assert row.top[0][1] == pytest.approx(probability, abs=1e-5)


def test_without_validation_the_last_weights_count(shapes: Path, tmp_path: Path) -> None:
    run = residua.train(
        shapes, epochs=1, val_fraction=0, out=tmp_path / "run", settings=QUICK, quiet=True
    )
    assert not (run.path / "best.safetensors").exists()
    assert run.folder.weights.name == "last.safetensors"
    assert "val_loss" not in run.history[0]
    assert {row.split for row in run.folder.read_split()} == {"train"}
    with pytest.raises(ResiduaError, match="trained on all images"):
        run.evaluate()


def test_patience_stops_and_keeps_the_best(shapes: Path, tmp_path: Path) -> None:
    run = residua.train(
        shapes,
        epochs=30,
        out=tmp_path / "run",
        settings={**QUICK, "training.patience": 2, "optimization.learning_rate": 0.0},
        quiet=True,
    )
    logged = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert len(run.history) == logged[-1]["best_epoch"] + 2 < 30  # at rate 0 nothing gets better
    assert (run.path / "last.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_with_advice(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ResiduaError, match=r"loss became .* epoch \d+, step \d+, at rate"
    ) as caught:
        residua.train(
            shapes,
            epochs=3,
            out=tmp_path / "run",
            settings={
                **QUICK,
                "optimization.learning_rate": 1e30,
                "optimization.schedule": "constant",
                "optimization.warmup_epochs": 0,
            },
            quiet=True,
        )
    assert "smaller optimization.learning_rate" in str(caught.value)
    kept = load_file(tmp_path / "run" / "state.safetensors")
    assert all(torch.isfinite(each).all() for each in kept.values())


def cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "residua", *words]


BUSY = ["--set", "optimization.ema_decay=0.9", "--set", "augmentation.mixup=0.3", "--curve-test"]
BUSY += ["--set", "optimization.optimizer=adamw", "--test-fraction", "0.2", "--epochs", "8"]


def test_killed_and_resumed_is_bit_identical(shapes: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment, several times, in the middle of epochs and of validations."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = [*BUSY, "--batch", "6", "--set", "training.save_seconds=0"]
    subprocess.run(cli("train", str(shapes), "--out", str(whole), *settings), check=True)
    words = cli("train", str(shapes), "--out", str(broken), *settings)
    for kill in range(3):
        process = subprocess.Popen(words)
        state, began = broken / "state.safetensors", time.time()
        while not state.exists() or state.stat().st_mtime < began:  # it has begun to work
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.13 * (kill + 1))
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        words = cli("resume", str(broken))
    subprocess.run(words, check=True)
    assert digests(whole) == digests(broken)
    assert history_without_clocks(whole) == history_without_clocks(broken)
    epochs = [
        row["epoch"]
        for row in map(json.loads, (broken / "log.jsonl").read_text().splitlines())
        if row["event"] == "epoch"
    ]
    assert epochs == list(range(1, 9))  # no epoch twice in the log either


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    shapes: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    words = cli("train", str(shapes), "--out", str(run), "--epochs", "500")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (run / "history.csv").exists() or "\n1," not in (run / "history.csv").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"residua resume {run}" in said
    assert "Traceback" not in said
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["event"] == "interrupted"


def test_two_processes_do_not_train_in_one_folder(run: residua.Run) -> None:
    from residua import api

    code = (
        "import sys, pathlib; from residua.run import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ResiduaError, match="another process"):
        api.resume(run, quiet=True)
    other.communicate("\n", timeout=60)


def test_resume_refuses_changed_data(tmp_path: Path) -> None:
    from residua import api

    data = write_shapes(tmp_path / "data", 8)
    run = residua.train(data, epochs=1, out=tmp_path / "run", settings=QUICK, quiet=True)
    Image.new("RGB", (16, 16), "white").save(data / "class0" / "000.png")
    with pytest.raises(ResiduaError, match=r"differ from split\.csv"):
        api.resume(run, quiet=True)


def test_lagging_statistics_are_estimated_anew_on_a_copy(shapes: Path) -> None:
    """With Keras' momentum and few steps, running statistics are useless and the copy's are not."""
    from residua.config.schema import Config, Preprocessing, Training
    from residua.data.augmentation import OFF
    from residua.data.batches import DecodedImages, TrainingBatches
    from residua.networks.layers import Norm
    from residua.networks.residual import CIFAR_STEM, ResNetConfig

    config = ResNetConfig(
        units=(1, 1), outputs=(16, 32), strides=(1, 2), stem=CIFAR_STEM, norm=Norm(0.01, 1e-3)
    )
    network = config.build(3, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    preprocessing = Preprocessing(
        size=8, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, crop=1.0, interpolation="antialias"
    )
    training = Training(batch=16, precision="fp32", statistics_images=64)
    inputs = TrainingBatches(
        DecodedImages(pixels, torch.device("cpu")),
        np.zeros(64, np.int64),
        np.arange(64),
        classes=10,
        batch=16,
        seed=0,
        preprocessing=preprocessing,
        augmentation=OFF,
    )
    config = Config(preprocessing=preprocessing, training=training)
    judge = judge_for(network, inputs, {"validation": np.arange(64)}, config, 0)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    judge.begin(network.train(), Average([], 0.0), epoch=0)
    for _ in judge.steps():
        pass
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    first = judge.network.stem.norm
    seen = network.stem.conv(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(first.running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-2)
    assert (network.stem.norm.running_mean - seen.mean((0, 2, 3))).abs().max() > 1


STEPS = 100


def rates(**settings: object) -> list[float]:
    optimization = Optimization(**{"rate": 1.0, "warmup_epochs": 0.0, **settings})  # type: ignore[arg-type]
    return [rate_at(optimization, step, STEPS, 10) for step in range(10 * STEPS)]


def test_schedules_are_pure_functions_with_the_shapes_of_their_names() -> None:
    assert set(rates(schedule="constant")) == {1.0}
    cosine = rates(schedule="cosine", warmup_epochs=1.0)
    assert max(cosine) == pytest.approx(1, abs=0.02)
    assert cosine[:STEPS] == sorted(cosine[:STEPS])
    assert cosine[STEPS:] == sorted(cosine[STEPS:], reverse=True)
    assert cosine[-1] < 1e-4
    steps = rates(schedule="steps", steps=((5, 0.1), (8, 0.01)))
    assert [steps[499], steps[500], steps[799], steps[800]] == [1.0, 0.1, 0.1, 0.01]
    one_cycle = rates(schedule="one_cycle", warmup_epochs=3.0)
    assert one_cycle[0] == pytest.approx(1 / 25, abs=0.01)
    assert np.argmax(one_cycle) in range(295, 305)


def test_inverse_time_decay_is_tutorial_3s() -> None:
    """lr .05, decay 1e-5: .04954 after epoch 1, .04571 after 10, as in the tutorial."""
    optimization = Optimization(rate=0.05, schedule="inverse_time", decay=1e-5, warmup_epochs=0.0)
    steps = math.ceil(60000 / 64)
    assert rate_at(optimization, steps, steps, 10) == pytest.approx(0.04954, abs=5e-6)
    assert rate_at(optimization, 10 * steps, steps, 10) == pytest.approx(0.04571, abs=5e-6)


def test_decay_touches_kernels_only() -> None:
    network = residua.build("cifar_resnet20", seed=0)
    settings = Optimization(optimizer="sgd", rate=0.1, weight_decay=0.5, layer_decay=1.0)
    optimizer = optimizer_for(network, settings)
    decayed = {
        id(each)
        for group in optimizer.param_groups
        if group["weight_decay"]
        for each in group["params"]
    }
    for name, parameter in network.named_parameters():
        is_kernel = "conv" in name or name == "head.weight"
        assert (id(parameter) in decayed) == is_kernel, name


def test_balanced_weights_even_out_the_classes() -> None:
    counts = [90, 10, 0]
    weights = balanced_weights(counts)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert sum(w * c for w, c in zip(weights, counts, strict=True)) == pytest.approx(100)


def test_tensorboard_events_are_written(shapes: Path, tmp_path: Path) -> None:
    run = residua.train(
        shapes,
        epochs=1,
        out=tmp_path / "run",
        settings={**QUICK, "training.tensorboard": True},
        quiet=True,
    )
    assert list((run.path / "tensorboard").glob("events*"))


def test_without_validation_weights_appear_while_it_trains(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = cli("train", str(shapes), "--out", str(run), "--epochs", "500", "--val-fraction", "0")
    process = subprocess.Popen([*words, "--set", "training.save_seconds=20"])
    while not (run / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    assert len((run / "history.csv").read_text().splitlines()) < 50  # not only after 20 seconds
    process.wait()
    assert residua.load(run).predict(shapes / "class0" / "000.png")[0].error is None


def test_nothing_is_written_into_the_data(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 4)
    for words in (["train", "."], ["look", "."], ["train", ".", "--out", "sub/run"]):
        done = subprocess.run(cli(*words), cwd=data, capture_output=True, text=True)
        assert done.returncode == 1
        assert "never written to" in done.stderr
    assert sorted(each.name for each in data.iterdir()) == ["class0", "class1", "class2"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preprocessing.channels": 2}, "one of 1, 3"),
        ({"preprocessing.channels": 1, "preprocessing.mean": [1, 2, 3]}, "each of 1 channels"),
        ({"preprocessing.std": [0, 1, 1]}, "above 0"),
        ({"network.classes": 2}, "has 3 classes"),
        ({"training.seed": 2**32}, "from 0 to"),
    ],
)
def test_contradictions_are_refused_before_training(
    shapes: Path, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ResiduaError, match=said):
        residua.train(shapes, out=tmp_path / "run", settings=settings, quiet=True)


def test_a_class_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 4)
    for file in (data / "class1").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ResiduaError, match="class1"):
        residua.train(data, epochs=1, out=tmp_path / "run", quiet=True)


def test_a_run_judges_foreign_data_beside_its_own(run: residua.Run, tmp_path: Path) -> None:
    own = run.evaluate().to_json()
    data = write_shapes(tmp_path / "test", 3, classes=2)
    foreign = run.evaluate(data)
    assert (foreign.split, foreign.scores.images) == ("all", 6)
    assert json.loads((run.path / "evaluations/test/scores.json").read_text()) == own
    kept = (run.path / "evaluations/data-test/predictions.csv").read_bytes()
    other = write_shapes(tmp_path / "other" / "test", 5, classes=2)
    assert run.evaluate(other).scores.images == 10
    run.evaluate(data)
    assert (run.path / "evaluations/data-test/predictions.csv").read_bytes() == kept
    found = sorted(each.name for each in (run.path / "evaluations").glob("data-test*"))
    assert found == ["data-test", "data-test-2"]


def test_a_grid_is_not_drawn_into_the_images(run: residua.Run, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 2)
    with pytest.raises(ResiduaError, match="never written to"):
        residua.predict(run, data, grid=data / "grid.png")
    assert sorted(each.name for each in data.iterdir()) == ["class0", "class1", "class2"]

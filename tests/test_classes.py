"""The class names of published networks are the published ones, and folders can be named freely."""

import hashlib
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

from residua.weights.published.classes import CIFAR10, class_indices, imagenet_classes


def test_imagenet_is_what_keras_publishes_to_the_byte() -> None:
    classes = imagenet_classes()
    index = {str(place): name.split(" ", 1) for place, name in enumerate(classes)}
    # the MD5 of imagenet_class_index.json, from keras/src/applications/imagenet_utils.py
    published = "c2c37ea517e94d9795004a39431a14cb"
    assert hashlib.md5(json.dumps(index).encode()).hexdigest() == published
    assert len(classes) == 1000


def test_the_elephants_of_the_tutorial_are_found_by_every_name() -> None:
    places = class_indices(imagenet_classes())
    for name in ("n02504013 Indian_elephant", "n02504013", "Indian_elephant", "Indian elephant"):
        assert imagenet_classes()[places[name]] == "n02504013 Indian_elephant"
    assert {places[name] for name in ("n01871265", "tusker")} == {101}
    assert {places[name] for name in ("African elephant", "n02504458 African elephant")} == {386}


def test_every_class_answers_to_its_wnid_and_only_unique_labels_answer() -> None:
    classes = imagenet_classes()
    places = class_indices(classes)
    assert [places[name.split()[0]] for name in classes] == list(range(1000))
    labels = [name.split(" ", 1)[1] for name in classes]
    silent = {label for label in labels if label not in places}
    assert silent == {label for label in labels if labels.count(label) > 1} == {"crane", "maillot"}
    assert places["Cardigan"] != places["cardigan"]


def test_plain_names_are_found_as_they_are_and_a_whole_name_wins() -> None:
    decomposed = unicodedata.normalize("NFD", "Möwe")
    places = class_indices((decomposed, "red_fox", "tench", "n01440764 tench", "a_b", "a b"))
    assert places["Möwe"] == 0
    assert places["red fox"] == places["red_fox"] == 1
    assert places["tench"] == 2
    assert places["n01440764"] == 3
    assert (places["a_b"], places["a b"]) == (4, 5)


def test_cifar10_is_in_label_order(shared_data: Path) -> None:
    folders = sorted(each.name for each in (shared_data / "cifar10_png1k").iterdir())
    assert list(CIFAR10) == folders == sorted(CIFAR10)
    assert class_indices(CIFAR10) == {name: place for place, name in enumerate(CIFAR10)}


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from residua.weights.classes import imagenet_classes; imagenet_classes(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

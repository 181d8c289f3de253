"""Class names are the published ones, and each class may be given by several names."""

import hashlib
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from residua.weights.published.classes import CIFAR10, class_indices, imagenet_classes


def test_imagenet_classes_are_those_of_keras_to_the_byte() -> None:
    classes = imagenet_classes()
    class_index = {str(index): name.split(" ", 1) for index, name in enumerate(classes)}
    # the MD5 of imagenet_class_index.json, from keras/src/applications/imagenet_utils.py
    published = "c2c37ea517e94d9795004a39431a14cb"
    assert hashlib.md5(json.dumps(class_index).encode()).hexdigest() == published
    assert len(classes) == 1000


def test_the_elephants_of_the_tutorial_have_several_names() -> None:
    indices = class_indices(imagenet_classes())
    for name in ("n02504013 Indian_elephant", "n02504013", "Indian_elephant", "Indian elephant"):
        assert imagenet_classes()[indices[name]] == "n02504013 Indian_elephant"
    assert {indices[name] for name in ("n01871265", "tusker")} == {101}
    assert {indices[name] for name in ("African elephant", "n02504458 African elephant")} == {386}


def test_a_class_may_be_given_by_wnid_and_by_its_label_if_that_is_unique() -> None:
    classes = imagenet_classes()
    indices = class_indices(classes)
    assert [indices[name.split()[0]] for name in classes] == list(range(1000))
    labels = [name.split(" ", 1)[1] for name in classes]
    ambiguous = {label for label in labels if label not in indices}
    assert (
        ambiguous == {label for label in labels if labels.count(label) > 1} == {"crane", "maillot"}
    )
    assert indices["Cardigan"] != indices["cardigan"]


def test_other_names_need_no_wnid_and_a_full_name_wins() -> None:
    decomposed = unicodedata.normalize("NFD", "Möwe")
    indices = class_indices((decomposed, "red_fox", "tench", "n01440764 tench", "a_b", "a b"))
    assert indices["Möwe"] == 0
    assert indices["red fox"] == indices["red_fox"] == 1
    assert indices["tench"] == 2
    assert indices["n01440764"] == 3
    assert (indices["a_b"], indices["a b"]) == (4, 5)


def test_cifar10_is_in_label_order(shared_data: Path) -> None:
    folders = sorted(folder.name for folder in (shared_data / "cifar10_png1k").iterdir())
    assert list(CIFAR10) == folders == sorted(CIFAR10)
    assert class_indices(CIFAR10) == {name: index for index, name in enumerate(CIFAR10)}


@pytest.mark.slow
def test_class_names_need_no_torch() -> None:
    code = (
        "import sys; from residua.weights.published import classes; classes.imagenet_classes(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

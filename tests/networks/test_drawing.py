"""The drawing is valid, truthful about the built module, and nothing in it overlaps."""

import re
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from residua.networks.analysis import drawing
from residua.networks.analysis.drawing import draw
from residua.networks.zoo import catalogue

SVG = "{http://www.w3.org/2000/svg}"
TIMES = "\N{MULTIPLICATION SIGN}"


@cache
def drawn(name: str, **options: Any) -> str:
    row = catalogue.row(name)
    with torch.device("meta"):
        network = catalogue.build(name, **options)
    return draw(network, name, (row.channels, row.size, row.size))


class Area(NamedTuple):
    left: float
    top: float
    right: float
    foot: float
    what: str

    def overlaps(self, other: "Area") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.foot <= other.top or other.foot <= self.top)

    def within(self, other: "Area") -> bool:
        inside = other.left <= self.left and self.right <= other.right
        return inside and other.top <= self.top and self.foot <= other.foot


class Image:
    """What a drawing shows: its rectangles by class, its texts, its lines."""

    def __init__(self, text: str) -> None:
        root = ElementTree.fromstring(text)
        self.page = Area(0, 0, float(root.attrib["width"]), float(root.attrib["height"]), "page")
        self.boxes: list[Area] = []
        self.cards: list[Area] = []
        for element in root.findall(f"{SVG}rect"):
            if element.attrib["class"] in ("page", "under"):
                continue
            x, y, width, height = (float(element.attrib[k]) for k in ("x", "y", "width", "height"))
            kind = element.attrib["class"]
            (self.cards if kind == "card" else self.boxes).append(
                Area(x, y, x + width, y + height, kind)
            )
        self.texts = [self.extent(element) for element in root.findall(f"{SVG}text")]
        self.words = [text.what for text in self.texts]
        self.arcs = [
            [float(number) for number in re.findall(r"-?[\d.]+", element.attrib["d"])]
            for element in root.findall(f"{SVG}path")
            if "q14" in element.attrib["d"]
        ]

    @staticmethod
    def extent(text: ElementTree.Element) -> Area:
        """About where a text stands: letters of Helvetica are half as wide as high, on average."""
        content = text.text or ""
        size = {"title": 26.0, "head": 15.0}.get(text.attrib["class"], 12.5)
        width = len(content) * size * 0.49
        if "transform" in text.attrib:  # along a brace, turned by 90 degrees
            x, y = map(float, re.findall(r"[\d.]+", text.attrib["transform"])[:2])
            return Area(x - size * 0.7, y - width / 2, x, y + width / 2, content)
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        x -= {"start": 0, "middle": width / 2, "end": width}[text.attrib["text-anchor"]]
        return Area(x, y - size * 0.7, x + width, y, content)

    def inside(self, box: Area) -> list[str]:
        return [text.what for text in self.texts if text.within(box)]


FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("resnet50", {}),
    ("resnet50", {"shortcut": "D"}),
    ("resnet18", {"shortcut": "none"}),
    ("resnet18", {"ordering": "b"}),
    ("resnet34", {"shortcut": "A"}),
    ("preact_resnet18", {}),
    ("resnext50_32x4d", {}),
    ("cifar_resnet20", {}),
    ("cifar_preact_resnet110", {}),
    ("cifar_preact_resnet164", {"ordering": "d"}),
    ("cifar_wrn28_10", {"ordering": "c"}),
    ("tutorial_cifar_resnet34", {}),
    ("tutorial_resnet18", {}),
    ("tutorial_vgg19_cifar", {}),
    ("vgg16", {}),
]


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_boxes_and_words_of_a_drawing_do_not_overlap(name: str, options: dict[str, Any]) -> None:
    image = Image(drawn(name, **options))
    assert image.boxes
    for one, two in combinations(image.boxes, 2):
        assert not one.overlaps(two), (one, two)
    for one, two in combinations(image.cards, 2):
        assert not one.overlaps(two)
    for text in image.texts:
        assert text.within(image.page), text
        assert "…" not in text.what
        for box in image.boxes + image.cards:
            assert not text.overlaps(box) or text.within(box), (text, box)
    for one, two in combinations(image.texts, 2):
        assert not one.overlaps(two), (one, two)
    for box in image.boxes:
        assert box.within(image.page)
        assert all(not box.overlaps(metadata) or box.within(metadata) for metadata in image.cards)


@pytest.mark.parametrize(
    "name", ["alexnet", "densenet121", "googlenet", "xception", "mobilenet_v1", "keras_resnet50v2"]
)
def test_other_architectures_are_drawn_too(name: str) -> None:
    row, image = catalogue.row(name), Image(drawn(name))
    assert image.words[0] == name
    assert f"{row.trainable:,} of them trainable" in image.words[1]
    for place in range(4):
        assert f"stages.{place}" in image.words


def test_units_of_a_bottleneck() -> None:
    image = Image(drawn("resnext50_32x4d"))
    titles = ["Identity unit", "Projection unit", "Projection unit, stride 2"]
    assert [text for text in image.words if "unit" in text and text[0].isupper()] == titles
    identity, _, changing = sorted(image.cards)
    boxes = [box for box in sorted(image.boxes, key=lambda box: box.top) if box.within(identity)]
    assert [image.inside(box) for box in boxes] == [
        [f"conv 1{TIMES}1", "128"],
        ["batch norm"],
        ["ReLU"],
        [f"conv 3{TIMES}3, 32 groups", "128"],
        ["batch norm"],
        ["ReLU"],
        [f"conv 1{TIMES}1", "256"],
        ["batch norm"],
        ["ReLU"],
    ]
    words = image.inside(changing)
    assert f"conv 3{TIMES}3 /2, 32 groups" in words
    assert f"conv 1{TIMES}1 /2" in words
    assert "1024 → 1024 → 1024 → 2048" in words
    assert {"branch", "after"} < set(words)
    assert f"64 {TIMES} 112 {TIMES} 112" not in image.words
    assert f"2048 {TIMES} 7 {TIMES} 7" in image.words


def taps(name: str, **options: Any) -> dict[str, bool]:
    """Title of a card -> whether its shortcut leaves the trunk below the boxes of `before`."""
    image = Image(drawn(name, **options))
    found = {}
    for metadata in image.cards:
        title = min(
            (text for text in image.texts if text.within(metadata)), key=lambda text: text.top
        )
        boxes = [box for box in image.boxes if box.within(metadata)]
        for middle, tap, *_ in image.arcs:
            if metadata.left < middle < metadata.right and metadata.top < tap < metadata.foot:
                found[title.what] = tap > min(box.top for box in boxes)
    return found


def test_shortcuts_leave_where_the_module_takes_them() -> None:
    stride = "Projection unit, stride 2"
    assert taps("resnet18") == {"Identity unit": False, stride: False}
    first = {"Identity unit, activated shortcut": True}  # He 2016: the first unit alone
    assert taps("preact_resnet18") == {"Identity unit": False, stride: True, **first}
    assert taps("tutorial_cifar_resnet32_d") == {"Identity unit": False, stride: True}
    assert taps("tutorial_cifar_resnet32_d_v2") == {"Identity unit": False, stride: False}
    assert taps("cifar_preact_resnet110") == {
        "Identity unit, activated shortcut": True,
        "Identity unit": False,
        "Zero-padding unit, stride 2": True,
    }


def test_shortcuts_are_told_apart() -> None:
    words = {
        shortcut: Image(drawn("resnet18", shortcut=shortcut)).words
        for shortcut in ("none", "A", "B", "D")
    }
    assert "zero pad /2" in words["A"]
    assert f"conv 1{TIMES}1 /2" in words["B"]
    assert f"avg pool 2{TIMES}2 /2" in words["D"]
    assert "Plain unit, no shortcut" in words["none"]
    for shortcut, each in words.items():
        assert ("identity" in each) == (shortcut != "none")
    assert not Image(drawn("resnet18", shortcut="none")).arcs
    assert 'class="plus"' not in drawn("resnet18", shortcut="none")


def test_the_built_module_is_drawn_not_its_plan() -> None:
    with torch.device("meta"):
        network: Any = catalogue.build("resnet50")
    network.stages[2].units = network.stages[2].units[:4]
    network.stages[3].units[1].branch.conv2 = nn.Conv2d(512, 512, 5, padding=2, groups=8)
    words = Image(draw(network, "cut", (3, 224, 224))).words
    assert words.count("4 units") == 2
    assert "6 units" not in words
    assert f"conv 5{TIMES}5, 8 groups" in words


def test_bars_are_units_and_fall_with_the_map() -> None:
    bars = [box for box in Image(drawn("resnet50")).boxes if box.what[:4] in ("kind", "plai")]
    assert [bar.what for bar in sorted(bars)] == [
        *("plain", "plain"),
        *("kind1", "kind0", "kind0"),
        *("kind2", *("kind0",) * 3),
        *("kind2", *("kind0",) * 5),
        *("kind2", "kind0", "kind0"),
        "plain",
    ]
    heights = [round(bar.foot - bar.top) for bar in sorted(bars)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == drawing.BARS


@pytest.mark.slow
def test_the_deepest_network_is_drawn() -> None:
    image = Image(drawn("cifar_resnet1202"))
    assert sum(box.what.startswith("kind") for box in image.boxes) == 600
    assert image.words.count("200 units") == 3


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return self.head((x + self.second(x)).mean((2, 3)))


def test_a_network_without_stages_is_a_column() -> None:
    text = draw(Foreign(), "mine <&> 'yours'", (3, 16, 16))
    image = Image(text)
    assert image.words[0] == "mine <&> 'yours'"
    assert [image.inside(box)[0] for box in image.boxes] == [
        "input",
        f"conv 3{TIMES}3",
        f"conv 3{TIMES}3",
        "add",
        "mean",
        "linear",
    ]
    assert "add   reads first, second" in image.words
    assert not image.cards


def test_light_and_dark_give_every_element_a_colour() -> None:
    light, dark = drawing.HEAD.split("@media (prefers-color-scheme: dark)")
    for surface in (
        "page",
        "card",
        "under",
        "muted",
        "line",
        "rule",
        "tip",
        "plus",
        "plain",
        "box",
    ):
        assert f".{surface} {{" in light
        assert f".{surface} {{" in dark
    classes = set(re.findall(r'class="([^"]+)"', drawn("resnet50") + drawn("vgg16")))
    for styles in classes:
        assert any(re.search(rf"\.{name}[ ,]", light) for name in styles.split()), styles
    assert {"box convolution", "box batch", "box relu", "box max", "box linear"} < classes


def test_long_names_are_cut() -> None:
    image = Image(draw(Foreign(), "x" * 300, (3, 8, 8)))
    assert image.words[0].endswith("…")
    assert image.texts[0].within(image.page)

"""YAML text -> plain data, within limits: a short text may mean gigabytes or endless nesting."""

from __future__ import annotations

from pathlib import Path

import yaml

MAX_TEXT = 200_000  # characters
MAX_NODES = 20_000  # values, with those that references repeat
MAX_DEPTH = 40


class _Loader(yaml.SafeLoader):
    """Refuses deep nesting while it reads."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """See yaml.composer.Composer."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)  # type: ignore[arg-type]
        self.depth -= 1
        return node


def load(text: str) -> object:
    """The data of a YAML document. Raises ValueError with a reason in one line."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text):,} characters, expected at most {MAX_TEXT:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_NODES:
            raise ValueError(f"its references stand for more than {MAX_NODES:,} values")
        return loader.construct_document(node)
    except (ArithmeticError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def read(path: Path) -> object:
    """The data of a YAML file. Raises OSError or ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    return load(path.read_text("utf-8"))


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Values below a node, each as often as it is referred to. Raises ValueError for a cycle."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = -1
        children = list(node.value)
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in children)
    if sizes[id(node)] < 0:
        raise ValueError("it refers to itself")
    return sizes[id(node)]

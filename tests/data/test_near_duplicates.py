"""Copies are found however they were made, different images are not, and groups are transitive."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from references.scenes import COPIES, scene
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from residua.data.alignment import Thumbnails
from residua.data.near_duplicates import equal_pairs, find_near_duplicates, groups_of, thumbnails_of

SCENES = [scene(seed) for seed in range(24)]


def thumbnails(images: list[Image.Image]) -> Thumbnails:
    return np.concatenate([thumbnails_of(np.asarray(image)[None]) for image in images])


def found(images: Thumbnails, features: np.ndarray | None = None) -> list[list[int]]:
    pairs: list[list[int]] = find_near_duplicates(images, features).tolist()
    return pairs


@pytest.mark.parametrize("name", COPIES)
def test_each_copy_is_found_and_nothing_else(name: str) -> None:
    copies = [COPIES[name](image) for image in SCENES[:6]]
    assert found(thumbnails(SCENES + copies)) == [[n, len(SCENES) + n] for n in range(6)]


def test_features_add_candidates_that_pixels_miss() -> None:
    """The crop is smaller than those that are searched, and mirrored."""
    crop = SCENES[1].crop((18, 18, 96, 96)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    images = thumbnails([*SCENES, crop])
    features = np.random.default_rng(0).normal(size=(len(images), 40)).astype(np.float32)
    features[-1] = features[1]
    assert found(images) == []
    assert found(images, features) == [[1, len(SCENES)]]


def test_constant_images_are_copies_of_nothing() -> None:
    flat = [Image.new("RGB", (96, 96), (level,) * 3) for level in (0, 90, 91, 255)]
    assert found(thumbnails(SCENES + flat)) == []


@pytest.mark.slow
def test_similar_drawings_are_not_copies_but_equal_ones_are() -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images[:300] * 15.9).astype(np.uint8)[..., None]
    drawings = thumbnails_of(np.concatenate([images, images[:2]]))
    assert found(drawings) == [[0, 300], [1, 301]]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_no_copies(count: int) -> None:
    images = thumbnails(SCENES[:2])[:count]
    assert found(images) == []


def test_groups_connect_chains_of_pairs() -> None:
    pairs = np.array([[4, 5], [1, 4], [2, 3]])
    assert groups_of(6, pairs).tolist() == [0, 1, 2, 2, 1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60),
    st.permutations(range(40)),
)
def test_groups_are_the_connected_components(
    edges: list[tuple[int, int]], order: list[int]
) -> None:
    chain = list(itertools.pairwise(order[:20]))
    pairs = np.array(edges + chain, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(40, 40))
    component = connected_components(graph, directed=False)[1]
    groups = groups_of(40, pairs)
    first = [int(np.flatnonzero(component == component[image])[0]) for image in range(40)]
    assert groups.tolist() == first


def test_equal_keys_are_connected_with_the_first() -> None:
    assert equal_pairs(["a", "b", "a", "a"]).tolist() == [[0, 2], [0, 3]]

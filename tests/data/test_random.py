"""Random numbers are uniform, independent between streams, and the same on every platform."""

from __future__ import annotations

import numpy as np

from residua.data.random import shuffled, uniform


def test_numbers_are_uniform_and_streams_independent() -> None:
    samples = np.arange(50_000)
    window, erase = (uniform(0, 0, samples, 2, name) for name in ("window", "erase"))
    next_epoch = uniform(0, 1, samples, 2, "window")
    next_seed = uniform(1, 0, samples, 2, "window")
    assert np.abs(np.histogram(window, 20, (0, 1))[0] / 5000 - 1).max() < 0.06
    for column in (
        window[:, 1],
        erase[:, 0],
        next_epoch[:, 0],
        next_seed[:, 0],
        np.roll(window[:, 0], 1),
    ):
        assert abs(np.corrcoef(window[:, 0], column)[0, 1]) < 0.02


def test_order_changes_with_the_epoch_and_depends_on_members_alone() -> None:
    members = np.array([5, 9, 2, 7, 30, 11])
    assert set(shuffled(0, 0, members)) == set(members)
    np.testing.assert_array_equal(shuffled(0, 3, members), shuffled(0, 3, members[::-1]))
    assert any((shuffled(0, 0, members) != shuffled(0, epoch, members)).any() for epoch in (1, 2))


def test_numbers_are_the_same_on_every_platform() -> None:
    numbers = uniform(3, 7, np.array([0, 5]), 2, "window")
    expected = [[0.4619915972115237, 0.4166298615667786], [0.2938345983777648, 0.624215773007151]]
    np.testing.assert_array_equal(numbers, expected)

"""Ranks are those of SciPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from residua.uncertainty.ranks import average_ranks


@given(st.lists(st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 3.0, np.inf]), max_size=30))
def test_equal_values_share_the_mean_of_their_ranks(values: list[float]) -> None:
    assert average_ranks(np.array(values)).tolist() == rankdata(values).tolist()

"""Cross-validated predictions are evaluated as those of a network that saw the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from residua.config.recipes import compose
from residua.config.validate import checked
from residua.data.prepare import prepare
from residua.evaluation.cross_validated import CrossValidated
from residua.system.console import Console


def test_a_probe_is_compared_by_a_head_that_saw_the_same_images_as_its_rivals(
    shapes: Path,
) -> None:
    """With labels that features do not explain, a head on all images would know every answer."""
    settings = {"network.weights": "", "data.val_fraction": 0.3}
    prepared = prepare(checked(compose(shapes, None, settings)), Console(quiet=True))
    samples = prepared.readable
    features = np.random.default_rng(0).normal(size=(len(samples), 256)).astype(np.float32)
    none = np.zeros(len(samples), bool)
    logits = np.zeros((len(samples), 3), np.float32)
    crossed = CrossValidated(samples, none, ~none, logits, features, 1.0)

    held_out = prepared.splits["validation"]
    correct = crossed.correct_without(held_out, prepared)

    trained = np.isin(samples, prepared.splits["train"])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-6, max_iter=2_000))
    model.fit(features[trained], prepared.labels[samples[trained]])
    expected = model.predict(features[~trained]) == prepared.labels[samples[~trained]]
    assert correct is not None
    assert dict(zip(held_out.tolist(), correct.tolist(), strict=True)) == dict(
        zip(samples[~trained].tolist(), expected.tolist(), strict=True)
    )
    assert not correct.all()
    unknown = np.array([10_000])
    assert crossed.correct_without(unknown, prepared) is None

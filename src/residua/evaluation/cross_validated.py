"""Cross-validated predictions of linear probes -> what calibrates them, and their evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.evaluation.calibrate import FittedProbe, HeldOut
from residua.evaluation.score import CROSS_VALIDATION, Evaluation, EvaluationSet, evaluation_of
from residua.inference.features import positions
from residua.inference.logistic import fit_logistic
from residua.inference.regressions import Floats
from residua.uncertainty.record import Uncertainty
from residua.weights.network import Logits


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """The predictions of linear probes for images that they were not fitted on.

    samples: int64 [N]. correct: bool [N]. evaluated: bool [N], see ProbeScores. logits:
    log-probabilities float32 [N, K]. features: float32 [N, D], which the probe reads. c: its
    inverse regularisation strength.
    """

    samples: Integers
    correct: npt.NDArray[np.bool_]
    evaluated: npt.NDArray[np.bool_]
    logits: Logits
    features: Floats
    c: float

    def correct_without(
        self, samples: Integers, prepared: Prepared
    ) -> npt.NDArray[np.bool_] | None:
        """Whether a head fitted on the training set of `prepared` classifies each of these samples
        correctly, bool [N]; None if the features of some are not there."""
        if not np.isin(samples, self.samples).all():
            return None
        fitted = np.isin(self.samples, prepared.splits["train"])
        head = fit_logistic(
            self.features[fitted],
            prepared.labels[self.samples[fitted]],
            len(prepared.dataset.classes),
            self.c,
            balanced=prepared.config.optimization.class_weights == "balanced",
            weights=prepared.weights_of(self.samples[fitted]),
        )
        logits = self.features[positions(self.samples, samples)] @ head.weight.T + head.bias
        return np.asarray(logits.argmax(1) == prepared.labels[samples])

    def held_out(self, prepared: Prepared) -> HeldOut:
        """The evaluated predictions, to calibrate a probe on all images with."""
        rows = self.evaluated
        balanced = prepared.config.optimization.class_weights == "balanced"

        def fit_head(features: Floats, labels: Integers) -> tuple[Floats, Floats]:
            head = fit_logistic(features, labels, int(labels.max()) + 1, self.c, balanced=balanced)
            return head.weight, head.bias

        labels, groups = prepared.labels[self.samples], prepared.group_numbers(self.samples)
        return HeldOut(
            "cross-validation",
            self.logits[rows],
            self.features[rows],
            labels[rows],
            groups[rows],
            FittedProbe(self.features, labels, groups, fit_head),
        )

    def evaluation(
        self, prepared: Prepared, uncertainty: Uncertainty | None, caveat: str
    ) -> Evaluation:
        """The predictions with calibrated probabilities, as an evaluation of the evaluated images,
        of which there must be one.

        uncertainty: of the saved weights. caveat: see Evaluation.
        """
        temperature = 1.0 if uncertainty is None else uncertainty.temperature
        logits = self.logits[self.evaluated] / np.float32(temperature)
        images = EvaluationSet.of(prepared, self.samples[self.evaluated], CROSS_VALIDATION)
        evaluation = evaluation_of(logits, images, prepared.dataset.classes)
        return dataclasses.replace(evaluation, caveat=caveat, uncertainty=uncertainty)

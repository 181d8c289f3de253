"""Cross-validated predictions of several configurations -> the accuracy of the final head.

Legend: N rows, M configurations (layer, C).

The head that a user gets is fitted on all N images with the configuration of the smallest mean
loss. Its accuracy on new images is not the cross-validated accuracy of that configuration. Three
things differ, and `estimate` corrects for each:

- Selection bias: the configuration was chosen on the same rows. The bootstrap selects again on
  resampled rows and compares these with all rows (Efron 1983, "Estimating the error rate of a
  prediction rule", section 2, applied to the selection alone, without refitting, as in Tsamardinos
  et al. 2018, "Bootstrapping the out-of-sample predictions ...", section 3).
- Fewer training rows: the evaluated heads miss the rows of a fold; corrected by what these rows
  clearly add, see `cross_validation.measured_gain`, and at least by `_GAIN` standard errors.
- Dependence: heads share training rows, and the final head depends on the images of the training
  set. Both widen the interval (Bates, Hastie and Tibshirani 2021, "Cross-validation: what does it
  estimate and how well does it do it?", sections 4 and 5), as if N / `_INFLATION` images were
  evaluated.

_GAIN and _INFLATION were set on flowers5 and digits. MNIST and birds6, which were not used for
that, and other draws of flowers5 and digits are in benchmarks/results/small-data-interval.txt, with
_GAIN alone: the CI covered the true accuracy in 94.3 to 97.8 % of draws of 5, 20 and 100 images per
class, at 1.16 to 1.18 times the width of Wilson's; Wilson's around the plain cross-validated
accuracy in 89 to 95 %. With the measured gain, on photos of hand signs and sports, it covered it in
94.0 to 96.7 % of draws, Wilson's in 88.0 to 94.0 % (small-data-interval-lite0.txt).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.data.random import uniform
from residua.errors import ResiduaError
from residua.inference.regressions import Labels
from residua.uncertainty.intervals import design_effect, wilson_interval

_GAIN = 0.3  # standard errors
_INFLATION = 1.4  # of the variance
_RESAMPLES = 200  # of the bootstrap


@dataclass(frozen=True)
class Estimate:
    """The expected accuracy of a head on new images with the class frequencies of the training set.

    interval: (low, high), contains the head's true accuracy for 95 % of training sets.
    images: that were evaluated.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int


def estimate(
    correct: npt.NDArray[np.bool_],
    losses: npt.NDArray[np.float64],
    seed: int,
    groups: Labels | None = None,
    gain: float = 0.0,
) -> Estimate:
    """The accuracy of the final head, from bool and float64 [N, M] of M configurations.

    Row n: results of probes that were not trained on image n. The final head has the configuration
    of the smallest mean loss. groups: int64 [N], of near-duplicates, which the interval counts by
    what they add. gain: see `measured_gain`. Raises ResiduaError without images.
    """
    if correct.shape != losses.shape or correct.ndim != 2 or not correct.shape[1]:
        raise ValueError(f"correct {correct.shape}, losses {losses.shape}")
    images = len(correct)
    if images == 0:
        raise ResiduaError("There are no images to evaluate, so there is no accuracy.")
    share = _without_selection_bias(correct.astype(np.float64), losses, seed)
    share = min(1.0, share + max(gain, _GAIN * math.sqrt(share * (1 - share) / images)))
    independent = images / _INFLATION
    if groups is not None:
        independent /= design_effect(correct[:, losses.mean(axis=0).argmin()], groups)
    return Estimate(share, wilson_interval(share, independent), images)


def _without_selection_bias(
    correct: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], seed: int
) -> float:
    """The accuracy of the configuration selected on resampled rows, less its selection bias.

    Averaged over bootstrap resamples: the accuracy on all rows, which varies less than that of one
    selection, minus its excess on the resampled rows that selected it.
    """
    images = len(correct)
    chance = uniform(seed, 0, np.arange(_RESAMPLES), images, "bootstrap")
    drawn = (chance * images).astype(np.int64)
    weights = np.stack([np.bincount(row, minlength=images) for row in drawn]) / images
    selected = (weights @ losses).argmin(axis=1)
    overall = correct.mean(axis=0)[selected]
    resampled = np.take_along_axis(weights @ correct, selected[:, None], axis=1)[:, 0]
    return float(np.clip(np.mean(2 * overall - resampled), 0, 1))

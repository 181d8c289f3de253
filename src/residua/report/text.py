"""Metrics of a run -> the words that its report, its model card and the terminal share."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from residua.config.auto import Choice, is_explicit, value_of
from residua.config.parse import all_settings, field_of
from residua.config.schema import Config
from residua.evaluation.metrics import MAJORITY, Metrics
from residua.runs.folder import REPORT, RunFolder
from residua.system.words import agreeing, counted, decimals, limit, percent
from residua.uncertainty.intervals import wilson_interval
from residua.uncertainty.unknown import ENOUGH

if TYPE_CHECKING:
    from residua.evaluation.score import Evaluation, FalseAlarms
    from residua.evaluation.slices import Slice
    from residua.transfer.result import CrossValidation
    from residua.uncertainty.calibration import Calibration
    from residua.uncertainty.unknown import UnknownDetector

Interval = tuple[float, float]
FEW = 20  # evaluated images of a class, below which its recall is uncertain


def headline(metrics: Metrics) -> dict[str, tuple[float, Interval]]:
    """Name -> value and 95 % interval of the metrics that summarise an evaluation, in [0, 1]."""
    return {
        "accuracy": (metrics.accuracy, metrics.interval),
        "balanced accuracy": (metrics.balanced_accuracy, metrics.balanced_interval),
        "macro F1": (metrics.macro_f1, metrics.macro_f1_interval),
    }


def accuracy_text(metrics: Metrics) -> str:
    """Accuracy, interval and images: "0.9500 (95 % CI 0.9010 to 0.9760, 120 images)"."""
    low, high = metrics.interval
    images = images_text(metrics.images, metrics.groups)
    value, low_text, high_text = (decimals(share, 4) for share in (metrics.accuracy, low, high))
    return f"{value} (95 % CI {low_text} to {high_text}, {images})"


def images_text(images: int, groups: int) -> str:
    """Evaluated images, and their groups if some belong together: "120 images in 96 groups"."""
    return counted(images, "image") + (f" in {counted(groups, 'group')}" if groups < images else "")


def evaluation_text(evaluation: Evaluation, unreadable: bool = True) -> str:
    """Metrics, also of each class, as lines for a terminal. unreadable: list these files too."""
    metrics = evaluation.metrics
    best = metrics.informative_top5
    top5 = "" if best is None else f", top-5 {decimals(best, 4)}"
    split = "" if evaluation.split == "all" else f"{evaluation.split} "
    width = max(len("class"), *(len(score.name) for score in metrics.per_class))
    lines = [
        f"{split}accuracy {accuracy_text(metrics)}{top5}, loss {metrics.loss:.4f}",
        *([evaluation.caveat] if evaluation.caveat else []),
        *(
            f"{name} {decimals(value, 4)} (95 % CI {decimals(low, 4)} to {decimals(high, 4)})"
            for name, (value, (low, high)) in headline(metrics).items()
            if name != "accuracy"
        ),
        f"{'class':<{width}}  precision  recall  {'(95 % CI)':<14}{'F1':>8}   AUROC  images",
    ]
    for score in metrics.per_class:
        precision, recall, f1, auroc = (
            "-" if value is None else decimals(value, 3)
            for value in (score.precision, score.recall, score.f1, score.auroc)
        )
        bounds = score.recall_interval
        interval = "-" if bounds is None else " to ".join(decimals(bound, 3) for bound in bounds)
        lines.append(
            f"{score.name:<{width}} {precision:>10}{recall:>8}  {interval:<14}{f1:>8}"
            f"{auroc:>8}{score.support:>8,}"
        )
    reliability = evaluation.reliability
    lines += [
        f"accuracy of at least {percent(threshold.accuracy)} with --min-probability "
        f"{limit(threshold.confidence, 4)}: {percent(threshold.share, 1)} of images"
        for threshold in (reliability.thresholds if reliability else ())
    ]
    if (alarms := evaluation.false_alarms) is not None:
        lines.append(f"images of known classes reported as unknown: {false_alarms_text(alarms)}")
    lines += [slice_text(entry) for entry in evaluation.slices]
    if unreadable:
        lines += [f"not readable: {path}: {reason}" for path, reason in evaluation.unreadable]
    return "\n".join(lines)


def finished_text(run: RunFolder, split: str, scores: Mapping[str, Any]) -> str:
    """The line that `resume` prints for a finished run. scores: of scores.json, if it exists."""
    accuracy = f"{split} accuracy {decimals(scores['accuracy'], 4)}, " if scores else ""
    return (
        f"{run.path} is finished and was not changed: {accuracy}report {run.path / REPORT}. "
        f"To train further: {shlex.join(_further_training(run))}"
    )


def _further_training(run: RunFolder) -> list[str]:
    """The words of a command that trains further on the same splits of the same data."""
    from residua.transfer.result import TOO_FEW_ERRORS

    config, choices = run.config, run.choices
    words = ["residua", "train", config.data.path]
    for name in all_settings():
        concerns_data = name.startswith("data.") and name not in ("data.path", "data.cache")
        if concerns_data or name == "training.seed":
            words += _option(config, choices, name)
    chosen = [choice.reason for choice in choices if choice.setting == "transfer.strategy"]
    more_time_helps = chosen and not chosen[0].endswith(TOO_FEW_ERRORS)
    is_probe = config.transfer.strategy == "features"
    if is_probe and more_time_helps and config.transfer.effort != "best":
        return [*words, *_option(config, choices, "network.weights"), "--effort", "best"]
    return [*words, "--weights", str(run.path), "--transfer", "full", "--epochs", "10"]


def _option(config: Config, choices: Collection[Choice], name: str) -> list[str]:
    """A setting as words of a command; none if it is automatic or the default."""
    value, field = value_of(config, name), field_of(name)
    if not is_explicit(config, choices, name) or value == field.default:
        return []
    flag = field.metadata["flag"]
    return [flag, str(value)] if flag else ["--set", f"{name}={value}"]


def slice_text(entry: Slice) -> str:
    """One sentence about images in which the accuracy is significantly lower."""
    low, high = entry.interval
    p_text = "< 0.001" if entry.p_value < 0.001 else f"= {entry.p_value:.2g}"
    return (
        f"{entry.description}: accuracy {percent(entry.accuracy, 1)} on "
        f"{counted(entry.images, 'image')} ({percent(low, 1)} to {percent(high, 1)}), "
        f"{percent(entry.elsewhere, 1)} on the others (p {p_text}; interval and p allow for the "
        f"{counted(entry.examined, 'slice')} examined)"
    )


def cautions(evaluation: Evaluation | None, probe: CrossValidation | None) -> list[str]:
    """Sentences on what is worse than one would expect: an accuracy below that of one class for all
    images, or of the linear probe in cross-validation; more false alarms than the detector of
    unknown images should give."""
    if evaluation is None or evaluation.split == "cross-validation":
        return []
    metrics, sentences = evaluation.metrics, []
    majority = evaluation.baselines.get(MAJORITY, 0.0)
    shown = sum(score.support > 0 for score in metrics.per_class)
    if majority > metrics.accuracy:
        sentences.append(
            f"Always predicting the largest class has a higher accuracy, {percent(majority, 1)}. "
            f"Compare the balanced accuracy, {percent(metrics.balanced_accuracy, 1)} "
            f"({percent(1 / shown, 1)} if one class is always predicted): class weights "
            "(optimization.class_weights) increase it at the expense of accuracy."
        )
    if evaluation.split == "test" and probe and metrics.interval[1] < probe.interval[0]:
        low, high = (percent(share, 1) for share in probe.interval)
        sentences.append(
            f"Cross-validation of the linear probe predicted {percent(probe.accuracy, 1)} (95 % CI "
            f"{low} to {high}). Either the test images differ from the training images, "
            "or several training images show the same object or scene and are not grouped "
            "(--group-by)."
        )
    alarms, uncertainty = evaluation.false_alarms, evaluation.uncertainty
    if alarms and uncertainty and uncertainty.unknown:
        rate, calibration = uncertainty.unknown.false_alarm_rate, min(uncertainty.images, ENOUGH)
        if alarms.interval[0] > wilson_interval(rate, calibration)[1]:  # both are estimates
            sentences.append(
                f"{false_alarms_text(alarms)} images of known classes are reported as unknown; at "
                f"most {percent(rate)} were expected. They may differ from the training images."
            )
    return sentences


def false_alarms_text(alarms: FalseAlarms) -> str:
    """How many images of the classes are reported as unknown, as a phrase."""
    low, high = (percent(share, 1) for share in alarms.interval)
    share = percent(alarms.reported / alarms.images, 1)
    return f"{alarms.reported:,} of {alarms.images:,} ({share}, 95 % CI {low} to {high})"


def limits(evaluation: Evaluation | None) -> list[str]:
    """Sentences: what the accuracy holds for, its interval, and what was not measured."""
    sentences = []
    if evaluation is not None:
        sentences += _interval_limits(evaluation)
        scores = evaluation.metrics.per_class
        few = [score.name for score in scores if score.support < FEW]
        if few:
            sentences.append(
                f"{len(few):,} of {counted(len(scores), 'class', 'classes')} "
                f"{agreeing(len(few), 'has', 'have')} fewer than {FEW} evaluated images: "
                f"{', '.join(few[:10])}{', ...' if len(few) > 10 else ''}."
            )
    return [
        *sentences,
        "Measured on images of the same source as the training images, not on those of other "
        "cameras, places, times or subjects.",
        "Not measured: robustness to damaged or altered images, fairness between groups of people.",
    ]


def _interval_limits(evaluation: Evaluation) -> list[str]:
    metrics = evaluation.metrics
    images = images_text(metrics.images, metrics.groups)
    method = "Wilson's score interval"
    if metrics.groups < metrics.images:
        method += (
            " at the effective sample size, as images of a group, such as near-duplicates, are not "
            "independent (design effect, Kish 1965)"
        )
    if evaluation.split == "cross-validation":
        return [
            f"The expected accuracy holds for images drawn like these {images}.",
            f"Its 95 % confidence interval is {method}, widened because the models of "
            "cross-validation share training images.",
        ]
    return [
        f"The accuracy holds for images drawn like the {images} of the {evaluation.split} set.",
        f"Its 95 % confidence interval is {method}. It covers the sampling of these images, not "
        "the variation between trainings.",
    ]


def calibration_text(calibration: Calibration) -> str:
    """The calibration error and its interval, or why it was not measured.

    Of an interval from 0 the upper limit comes first: an estimate of 0 does not mean calibrated.
    """
    if calibration.interval is None:
        return _unmeasured_text(calibration)
    error, low, high = (percent(share, 1) for share in (calibration.error, *calibration.interval))
    if calibration.interval[0] > 0:
        return f"{error} (95 % CI {low} to {high})"
    return f"at most {high} (upper limit of the 95 % CI, which includes 0; estimate {error})"


def _unmeasured_text(calibration: Calibration) -> str:
    wrong = agreeing(calibration.errors, "is", "are")
    return (
        f"not measured, {calibration.reason}: {calibration.errors:,} of "
        f"{counted(calibration.images, 'prediction')} {wrong} wrong, mean probability of the "
        f"predicted class {percent(calibration.confidence, 1)}"
    )


def unknown_text(detector: UnknownDetector | None, classes: int) -> str:
    """A statement about images of none of the classes, as far as it was measured."""
    if detector is None:
        return "An image of none of the classes is still assigned to one of them."
    rate = percent(detector.false_alarm_rate)
    alarms = f"On average, at most {rate} of images of the known classes are reported as unknown."
    if detector.auroc is None:
        reason = (
            "with two classes, none can be left out"
            if classes <= 2
            else "the network was trained on all classes, so none can be left out"
        )
        return (
            "The share of images of none of the classes that is reported as unknown was not "
            f"measured: {reason}. {alarms}"
        )
    number = counted(detector.left_out, "class", "classes")
    left_out = f"{number} that {agreeing(detector.left_out, 'was', 'were')} left out in turn"
    if not detector.tested:  # of few images, or of a run of 0.1.0
        return (
            f"The share of images of {left_out} that is reported as unknown was not measured "
            f"(AUROC {detector.auroc:.3f}). {alarms}"
        )
    return (
        f"Of the images of {left_out}, {percent(detector.reported / detector.tested)} "
        f"({detector.reported:,} of {detector.tested:,}) are reported as unknown (AUROC "
        f"{detector.auroc:.3f}). {alarms} Images of other kinds of classes were not tested."
    )

"""Labelled images -> a trained, evaluated image classifier, and its predictions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from residua._version import __version__ as __version__

if TYPE_CHECKING:
    from residua.api.deployment import export as export
    from residua.api.deployment import push as push
    from residua.api.deployment import serve as serve
    from residua.api.estimator import ImageClassifier as ImageClassifier
    from residua.api.explanation import explain as explain
    from residua.api.prediction import features as features
    from residua.api.prediction import predict as predict
    from residua.api.prediction import transform as transform
    from residua.api.training import Run as Run
    from residua.api.training import build as build
    from residua.api.training import evaluate as evaluate
    from residua.api.training import load as load
    from residua.api.training import models as models
    from residua.api.training import resume as resume
    from residua.api.training import train as train
    from residua.audits.audit import Audit as Audit
    from residua.audits.audit import audit as audit
    from residua.comparison.compare import Comparison as Comparison
    from residua.comparison.compare import compare as compare
    from residua.data.pixels import Transform as Transform
    from residua.errors import ResiduaError as ResiduaError
    from residua.evaluation.explain import Explanation as Explanation
    from residua.evaluation.explain import Explanations as Explanations
    from residua.evaluation.predict import Features as Features
    from residua.evaluation.predictor import Prediction as Prediction
    from residua.evaluation.predictor import Predictions as Predictions
    from residua.evaluation.score import Evaluation as Evaluation
    from residua.exports.export import Exported as Exported
    from residua.runs.tracking import Tracker as Tracker
    from residua.transfer.result import CrossValidation as CrossValidation

HOMES = {  # public name -> its module
    "Audit": "residua.audits.audit",
    "Comparison": "residua.comparison.compare",
    "CrossValidation": "residua.transfer.result",
    "Evaluation": "residua.evaluation.score",
    "Explanation": "residua.evaluation.explain",
    "Explanations": "residua.evaluation.explain",
    "Exported": "residua.exports.export",
    "Features": "residua.evaluation.predict",
    "ImageClassifier": "residua.api.estimator",
    "Prediction": "residua.evaluation.predictor",
    "Predictions": "residua.evaluation.predictor",
    "ResiduaError": "residua.errors",
    "Run": "residua.api.training",
    "Tracker": "residua.runs.tracking",
    "Transform": "residua.data.pixels",
    "audit": "residua.audits.audit",
    "build": "residua.api.training",
    "compare": "residua.comparison.compare",
    "evaluate": "residua.api.training",
    "explain": "residua.api.explanation",
    "export": "residua.api.deployment",
    "features": "residua.api.prediction",
    "load": "residua.api.training",
    "models": "residua.api.training",
    "predict": "residua.api.prediction",
    "push": "residua.api.deployment",
    "resume": "residua.api.training",
    "serve": "residua.api.deployment",
    "train": "residua.api.training",
    "transform": "residua.api.prediction",
}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import residua` does not import torch."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

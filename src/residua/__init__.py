"""Labelled images -> a trained, evaluated image classifier, and its predictions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from residua._version import __version__ as __version__

__all__ = [
    "Audit",
    "Comparison",
    "CrossValidation",
    "Evaluation",
    "Explanation",
    "Exported",
    "Features",
    "ImageClassifier",
    "Prediction",
    "Predictions",
    "ResiduaError",
    "Run",
    "Tracker",
    "Transform",
    "audit",
    "build",
    "compare",
    "evaluate",
    "explain",
    "export",
    "features",
    "load",
    "models",
    "predict",
    "push",
    "resume",
    "serve",
    "train",
    "transform",
]

if TYPE_CHECKING:
    from residua.api import (
        Run,
        audit,
        build,
        evaluate,
        explain,
        export,
        features,
        load,
        models,
        predict,
        push,
        resume,
        serve,
        train,
        transform,
    )
    from residua.api.estimator import ImageClassifier
    from residua.audits.audit import Audit
    from residua.comparison.compare import Comparison, compare
    from residua.data.pixels import Transform
    from residua.errors import ResiduaError
    from residua.evaluation.explain import Explanation
    from residua.evaluation.predict import Features
    from residua.evaluation.predictor import Prediction, Predictions
    from residua.evaluation.score import Evaluation
    from residua.exports.export import Exported
    from residua.runs.tracking import Tracker
    from residua.transfer.result import CrossValidation

HOMES = {  # modules of the public names that are not in residua.api
    "Audit": "residua.audits.audit",
    "Comparison": "residua.comparison.compare",
    "CrossValidation": "residua.transfer.result",
    "Evaluation": "residua.evaluation.score",
    "Explanation": "residua.evaluation.explain",
    "Exported": "residua.exports.export",
    "Features": "residua.evaluation.predict",
    "ImageClassifier": "residua.api.estimator",
    "Prediction": "residua.evaluation.predictor",
    "Predictions": "residua.evaluation.predictor",
    "ResiduaError": "residua.errors",
    "Tracker": "residua.runs.tracking",
    "Transform": "residua.data.pixels",
    "compare": "residua.comparison.compare",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import residua` does not import torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES.get(name, "residua.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

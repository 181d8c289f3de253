"""Arguments of the public functions -> calls of the internal modules; `residua.NAME` is here."""

from residua.api.deployment import export, push, serve
from residua.api.explanation import explain
from residua.api.prediction import features, predict, transform
from residua.api.training import Run, build, evaluate, load, models, resume, train
from residua.audits.audit import audit

__all__ = [
    "Run",
    "audit",
    "build",
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

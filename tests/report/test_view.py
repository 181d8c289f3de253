"""Views of scores and numbers: honest roundings, readable colours, instructive grids."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from residua.evaluation.metrics import summarize
from residua.evaluation.score import Evaluation
from residua.report import view
from residua.report.view import Cell, confusion_cells, duration, most_instructive, percent

CSS = Path(view.__file__).parents[1] / "templates" / "report.css.j2"



"""Finished runs -> their results, their differences, and a folder with a page about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from residua.comparison.page import ComparedRun, RunFacts, comparison_page
from residua.comparison.pairing import Pair, file_predictions, pair_runs, read_predictions
from residua.config.auto import has_effect, value_of
from residua.config.parse import all_settings
from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.networks.analysis.cost import costs_of
from residua.report.fonts import shorten
from residua.report.page import Page, Table, write
from residua.runs.folder import RunFolder, throughputs
from residua.system.files import check_unused, new_folder, refuse_inside, user_path
from residua.system.notebook import shown
from residua.system.words import counted
from residua.weights.exported import is_exported

PARENT = "comparisons"
WIDEST = 30  # columns of a cell on a terminal


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The result of `residua compare`. pairs: each further run with the first.

    settings: dotted name -> a value for each run, of the settings that differ.
    """

    folder: Path
    runs: tuple[RunFacts, ...]
    pairs: tuple[Pair, ...]
    settings: Mapping[str, tuple[object, ...]]
    page: Page

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}: {counted(len(self.runs), 'run')})"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return str(shown("page_html", self.page))

    def to_json(self) -> dict[str, object]:
        """The object that `residua compare --json` prints; differences are fractions."""
        return {
            "folder": str(self.folder),
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
            "settings": {name: list(values) for name, values in self.settings.items()},
            "findings": list(self.page.findings),
        }

    def text(self) -> str:
        """Tables and sentences for a terminal: a column for each run."""
        lines = [self.page.title, ""]
        for table in self.page.tables:
            lines += [table.title, *_aligned(table), ""]
        lines += [f"- {finding}" for finding in self.page.findings]
        return "\n".join([*lines, "", str(self.folder / "index.html")])


class HasPath(Protocol):
    """A `residua.Run`, a RunFolder, or the result of `residua.export`."""

    @property
    def path(self) -> Path:
        """The run folder, or the exported file in it."""


def compare(
    *runs: str | Path | HasPath, out: str | Path | None = None, allow_code: bool = False
) -> Comparison:
    """Compare each run with the first; as `residua compare`.

    Accuracies are compared on the images that both were evaluated on and neither was trained on,
    with a paired interval and McNemar's exact test; near-duplicates and groups of --group-by count
    once, in a sign-flip permutation test. An exported file in a run folder is evaluated on the
    held-out images of that run. out: a new folder, else the next free
    comparisons/<n>, for the page, its tables and figures. allow_code: run exported .pt2 and
    .torchscript files, see `evaluate`. Raises ResiduaError, also for a run without predictions.
    """
    paths = [user_path(run.path if hasattr(run, "path") else run) for run in runs]
    folders = [_run_of(path) for path in paths]
    _check(paths)
    names = _names(paths)
    rows = zip(folders, paths, names, strict=True)
    compared = [_read(*row, allow_code=allow_code) for row in rows]
    _check_folder(out, compared)
    first, *others = [run.predictions for run in compared]
    pairs = pair_runs(first, others)
    settings = differing([run.config for run in compared])
    page = comparison_page(compared, pairs, settings)
    folder = new_folder(user_path(out or PARENT), "" if out is None else None)
    write(page, folder, "compare.md")
    return Comparison(folder, tuple(run.facts for run in compared), pairs, settings, page)


def differing(configs: Sequence[Config]) -> dict[str, tuple[object, ...]]:
    """Dotted name -> a value for each config, of every setting in which they differ.

    A setting without effect on a run, such as the epochs of a linear probe, is None there.
    """
    rows = {}
    for name in all_settings():
        found = [(has_effect(config, name), value_of(config, name)) for config in configs]
        if len({value for is_used, value in found if is_used}) > 1:
            rows[name] = tuple(value if is_used else None for is_used, value in found)
    return rows


def _run_of(path: Path) -> RunFolder:
    """The run of a folder, or of an exported file in it. Raises ResiduaError."""
    if not is_exported(path):
        return RunFolder.existing(path)
    run = RunFolder.around(path)
    if run is None:
        raise ResiduaError(
            f"{path}: is not in a run folder, whose held-out images a comparison needs: export it "
            "into the run's folder, as `residua export RUN` does."
        )
    return run


def _check(paths: Sequence[Path]) -> None:
    if len(paths) < 2:
        raise ResiduaError(
            "compare needs at least two runs"
            + (f", not {paths[0]} alone" if paths else "")
            + ". `residua evaluate RUN` evaluates one."
        )
    resolved = [path.resolve() for path in paths]
    for number, path in enumerate(paths):
        if resolved[number] in resolved[:number]:
            raise ResiduaError(f"{path}: is listed twice: expected different runs or files.")


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-count:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read(run: RunFolder, path: Path, name: str, *, allow_code: bool) -> ComparedRun:
    """Read a run. path: its folder, or an exported file in it.

    Raises ResiduaError with the command to run if the run is unfinished.
    """
    config = run.config
    if path.is_file():
        files = [path]
        predictions = file_predictions(run, name, path, allow_code=allow_code)
        if path.suffix == ".xml":
            files.append(path.with_suffix(".bin"))
    else:
        files, predictions = [run.weights], read_predictions(run, name)
    history = run.read_history()
    cost = costs_of(config.network_spec, config.preprocessing.size)
    speeds, split = throughputs(history), predictions.split
    facts = RunFacts(
        name=name,
        path=str(path),
        network=config.network.name,
        split=split,
        accuracy=predictions.accuracy,
        interval=predictions.interval,
        images=len(predictions.results[split]) if split else 0,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        file_bytes=sum(file.stat().st_size for file in files),
        epochs=len(history),
        images_per_second=median(speeds) if speeds else None,
        seconds=history[-1].get("seconds") if history else None,
        device=_device(run.read_json("environment.json", dict), run),
    )
    return ComparedRun(run, config, predictions, history, run.classes, facts)


def _device(environment: Any, run: RunFolder) -> str:
    try:
        threads = counted(int(environment["threads"]), "thread")
        return f"{environment['device_name']}, {threads}"
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ResiduaError(
            f"{run.path / 'environment.json'}: expected device_name and threads."
        ) from error


def _check_folder(out: str | Path | None, runs: Sequence[ComparedRun]) -> None:
    """Raise ResiduaError if `out` is not empty, or is inside a run or its data."""
    target = user_path(out or PARENT)
    for run in runs:
        refuse_inside(target, run.config.data.path)
    path = target.resolve()
    for parent in (path, *path.parents):
        if RunFolder.is_at(parent):
            raise ResiduaError(
                f"{target}: is inside the run {parent}: give --out another folder, or change to "
                "another working directory."
            )
    if out is not None:
        check_unused(target, "the comparison")


def _aligned(table: Table) -> list[str]:
    """Aligned lines: the first column to the left, the others to the right."""
    texts = [[shorten(table.text(cell), WIDEST) for cell in row] for row in table.lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if index else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]

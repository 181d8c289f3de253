"""argv -> one call of a public function; --help does not import torch.

Machine-readable output goes to stdout, everything else to stderr. The settings among the options of
`train` are defined in config: names, help and ranges.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TextIO, cast

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup

from residua._version import __version__
from residua.cli import export, models, predict, serve, train, weights
from residua.cli.audit import audit
from residua.cli.explain import explain
from residua.cli.options import hint_of_setting, with_settings
from residua.cli.study import study
from residua.errors import ResiduaError, UsageError

SET_COMMANDS = ("look", "train")  # with an option or --set for every setting
HELP_FLAGS = {"help_option_names": ["-h", "--help"]}


class _PlainHelp:
    """A command whose --help shows metavars alone: DATA, not {DATA}, and no <str> or <bool>."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperArgument) or param.is_flag:
                param.display_type_rich = lambda ctx: None
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece.replace("{", "").replace("}", "") for piece in pieces]


class _Command(_PlainHelp, TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer's NoSuchOption is click's or, in later versions, its own
            is_unknown = self.name in SET_COMMANDS and hasattr(error, "possibilities")
            if is_unknown and (hint := hint_of_setting(cast(Any, error).option_name)):
                cast(Any, error).message += hint
                cast(Any, error).possibilities = None
            raise


class _Group(_PlainHelp, TyperGroup):
    pass


app = typer.Typer(
    name="residua",
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=HELP_FLAGS,
)
weights_app = typer.Typer(
    name="weights",
    cls=_Group,
    help="""Inspect, convert and verify weights files.


Examples:
  residua weights inspect model.weights.h5
  residua weights convert model.weights.h5 model.safetensors
""",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=HELP_FLAGS,
)
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {  # panel of `residua --help` -> commands
    "Data and training": (
        audit,
        with_settings(train.look),
        with_settings(train.train),
        train.resume,
        train.demo,
    ),
    "Evaluation": (predict.evaluate, predict.predict, explain, predict.features, predict.compare),
    "Deployment": (export.export, export.push, serve.serve),
    "Models and studies": (models.models, study),
}


def _help_of(command: Callable[..., None]) -> str:
    """Its docstring, with each paragraph in one line: the terminal's width breaks it.

    A third newline after the summary keeps the examples indented.
    """
    paragraphs = [
        paragraph if paragraph.startswith("Examples:") else paragraph.replace("\n", " ")
        for paragraph in (inspect.getdoc(command) or "").split("\n\n")
    ]
    return "\n\n".join(paragraphs).replace("\n\n", "\n\n\n", 1)


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(cls=_Command, help=_help_of(command), rich_help_panel=panel)(command)
for command in (weights.inspect, weights.convert, weights.verify, weights.sources):
    weights_app.command(cls=_Command, help=_help_of(command))(command)
app.add_typer(weights_app, rich_help_panel="Models and studies")

# Settings of glibc's allocator, read when a process starts: keep the blocks that every training
# step frees and allocates again, and back them with huge pages.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.top_pad=67108864"
)


def main() -> None:
    """Run the command line; a ResiduaError ends as a message and exit status 1 or 2."""
    if sys.argv[1:2] and sys.argv[1] in ("train", "resume", "demo", "study"):
        _restart_with_tuned_allocator()
    with _streams():
        root_command()(prog_name="residua")  # also when restarted as a module


@functools.cache
def root_command() -> Any:
    """`residua` as a command of Click."""
    return typer.main.get_command(app)


def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train, evaluate and use image classifiers.

    Examples:
      residua demo
      residua train photos --test-fraction 0.2
      residua predict runs/photos-1 new.jpg
    """
    if version:
        print(f"residua {__version__}")
        raise typer.Exit


app.callback(cls=_Group, invoke_without_command=True, help=_help_of(root))(root)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard streams that may be closed, full or without a reader; prints a ResiduaError.

    A message to stderr that cannot be written is dropped; for stdout that is an error.
    """
    from residua.system.console import Console, Output, discard

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: without this, the next file that is opened would take its place
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # file names may not fit the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with contextlib.redirect_stdout(cast(TextIO, Output(sys.stdout))):
            try:
                yield
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(1)
    except ResiduaError as error:
        Console().error(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
    finally:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except OSError:
            discard(sys.stderr)


def _restart_with_tuned_allocator() -> None:
    """Restart the process once with TUNABLES; a value set by the user wins."""
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "residua", *sys.argv[1:]], environment)

"""argv -> one call of the public functions; --help knows no torch.

What a machine may read goes to stdout, everything else to stderr. Options of `train` that are
settings come from config: their names, their help and their rules are written there, once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from residua._version import __version__
from residua.cli import models, train, use
from residua.cli.options import with_settings
from residua.cli.study import study
from residua.errors import ResiduaError

app = typer.Typer(
    name="residua",
    help="From a folder of labelled images to a classifier you can trust.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    with_settings(train.train),
    train.resume,
    use.evaluate,
    use.compare,
    use.predict,
    use.features,
    models.models,
    with_settings(train.look),
    train.demo,
    study,
):
    app.command()(command)
app.add_typer(models.weights)

# How glibc's allocator should treat the blocks that every training step frees and wants again: keep
# them, and back them with huge pages. It reads this once, when a process starts.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.top_pad=67108864"
)


def main() -> None:
    """Run the command line; errors of the user's kind end as a sentence and a status."""
    for stream in (sys.stdout, sys.stderr):  # file names need not fit the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] and sys.argv[1] in ("train", "resume", "demo", "study"):
        _with_kept_memory()
    try:
        app(prog_name="residua")  # also where it was started again as a module
    except ResiduaError as error:
        from residua.system.console import Console

        Console().error(str(error))
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"residua {__version__}")
        raise typer.Exit


def _with_kept_memory() -> None:
    """Start again, once, with an allocator that suits training; an explicit setting wins."""
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "residua", *sys.argv[1:]], environment)

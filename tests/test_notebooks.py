"""The notebooks of the documentation run, and so do training and its interruption in a kernel.

Their outputs are stored, so that they can be read without running them:

    python tests/test_notebooks.py    runs the notebooks and stores their outputs
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

import residua

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
NAMES = sorted(file.name for file in NOTEBOOKS.glob("*.ipynb"))
SECONDS = 300  # in which a kernel replies, on a busy machine


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def html_of(notebook: Any) -> str:
    return "\n".join(output.get("data", {}).get("text/html", "") for output in outputs_of(notebook))


def printed(notebook: Any) -> str:
    return "".join(output.get("text", "") for output in outputs_of(notebook))


def executed(name: str, folder: Path) -> Any:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    assert "\x1b" not in printed(notebook)
    assert not [o for o in outputs_of(notebook) if o.get("name") == "stderr"]
    return notebook


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_can_be_read_without_running_it(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert html_of(notebook)
    assert "Traceback" not in printed(notebook)
    assert (NOTEBOOKS / name).stat().st_size < 1_000_000


def test_own_photos_become_a_classifier_that_knows_what_it_does_not_know(tmp_path: Path) -> None:
    notebook = executed("own-photos.ipynb", tmp_path)
    html = html_of(notebook)
    for text in ("residua audit", "residua run", "residua evaluation", "Prediction set"):
        assert text in html
    figures = [o for o in outputs_of(notebook) if "image/png" in o.get("data", {})]
    assert len(figures) == 2
    *digits, noise = printed(notebook).splitlines()[-7:]
    assert all("/new/0" in line for line in digits)
    assert "/new/" not in noise
    assert not noise.endswith("None"), "noise is no digit"
    assert {file.name for file in tmp_path.iterdir()} == {"runs"}, "files beside those of the user"


def test_one_image_is_explained(tmp_path: Path) -> None:
    notebook = executed("one-image.ipynb", tmp_path)
    assert html_of(notebook).count("Grad-CAM") == 2
    assert len(set(re.findall(r"/photos/(\d/\d{4}\.png)", html_of(notebook)))) == 4
    assert not list(tmp_path.iterdir()), "files beside those of the user"


@contextmanager
def kernel(folder: Path) -> Iterator[tuple[Any, Any]]:
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(
    client: Any, code: str, watch: Callable[[str, list[Any]], None]
) -> tuple[str, list[Any]]:
    """Everything printed and all messages of a cell. watch: gets both so far."""
    request, text, messages = client.execute(code), "", []
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except Empty:
            continue
        if message["parent_header"].get("msg_id") != request:
            continue
        messages.append(message)
        if message["msg_type"] == "stream":
            text += message["content"]["text"]
        watch(text, messages)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return text, messages
    raise TimeoutError(text)


def bars_of(messages: list[Any]) -> list[str]:
    """The HTML of the progress bar, as it was shown and updated."""
    shown = [message for message in messages if "display_data" in message["msg_type"]]
    return [message["content"]["data"]["text/html"] for message in shown]


def test_an_interrupted_training_shows_a_line_and_can_be_used_and_resumed(
    tmp_path: Path, write_digits: Callable[..., Path]
) -> None:
    write_digits(tmp_path / "photos", 6)
    code = (
        'import residua\nresidua.train("photos", model="cifar_resnet14", epochs=2000, size=16, '
        'out="run", precision="fp32")'
    )
    with kernel(tmp_path) as (manager, client):
        interrupted = False

        def interrupt(text: str, messages: list[Any]) -> None:
            nonlocal interrupted
            ready = "epoch   3/2000" in text and bars_of(messages)
            if ready and not interrupted:
                interrupted = True
                manager.interrupt_kernel()

        text, messages = run_cell(client, code, interrupt)
        assert "\x1b" not in text
        bars = bars_of(messages)
        assert any(bar.startswith("<div>training <progress") for bar in bars)
        assert bars[-1] == "", "a bar is left"
        (error,) = (m["content"] for m in messages if m["msg_type"] == "error")
        (line,) = error["traceback"]
        assert "checkpoint saved, continue with" in line
        reply, _ = run_cell(
            client, 'print(residua.load("run").predict("photos/3")[0])', lambda *_: None
        )
        assert reply.startswith("Prediction(file='photos/3")
    run = residua.load(tmp_path / "run")
    assert 3 <= len(run.history) < 2000
    assert len(text.splitlines()) < len(run.history) + 20


if __name__ == "__main__":
    for name in NAMES:
        with TemporaryDirectory() as folder:
            nbformat.write(executed(name, Path(folder)), NOTEBOOKS / name)

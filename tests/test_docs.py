"""Commands and Python code of README and docs run as written; figures match the measurements.

Commands run in this process, in the order of a page, in a folder with 2 classes of 15 images of 12
px. What differs from a reader's machine:

- `train` runs at 32 px, and 1 epoch except with --effort; resnet34 has fewer units and channels;
- `study` trains one seed on 20 images;
- published weights are random ones in the cache, for nothing is downloaded;
- OMITTED commands are parsed, not run.

    python tests/test_docs.py     writes docs/settings.md from the settings
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import tomllib
import typing
from pathlib import Path

import pytest
import torch
from PIL import Image
from references.command_line import every_command, parse, residua
from references.images import write_colours
from references.network_checks import narrowed

from residua.config.parse import RENAMED
from residua.config.schema import AUTO, Config
from residua.networks.zoo import catalogue
from residua.weights.published.imagenet import SOURCES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
OMITTED = {
    "residua study orderings": "trains ten runs; tests/studies train such rows",
    "residua study softmax": "computes for seconds; tests/studies run it",
    "residua models --json": "builds every network; tests/cli run it",
    "residua train photos --weights imagenet:resnet18 --transfer auto": "tests/transfer run it",
    "residua serve": "runs until it is stopped; tests/serving run it",
    "residua weights verify": "tests/weights compare all networks with Keras",
}
SHORTER = {  # command -> options that win over those of a page: the last one counts
    "train": ("--epochs", "1", "--size", "32"),
    "study": ("--set", "training.max_images=20", "--seeds", "1"),
}
PUBLISHED = ("resnet18",)  # networks of imagenet:NAME in the blocks


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands(page: Path) -> list[str]:
    """Commands of the sh blocks, without comments."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the reader: photos/, birds.csv, holiday/, new.jpg, a run, mine.yaml."""
    folder = tmp_path_factory.mktemp("reader")
    write_colours(folder / "photos", {"puffin": 0, "toucan": 2}, 15, (12, 12), seed=0)
    (folder / "holiday").mkdir()
    with Image.open(folder / "photos" / "toucan" / "14.png") as image:
        image.save(folder / "holiday" / "beach.jpg")
        image.save(folder / "new.jpg")
    rows = [
        f"photos/{name}/{number}.png,{name},{number % 5}"
        for name in ("puffin", "toucan")
        for number in range(15)
    ]
    (folder / "birds.csv").write_text("\n".join(["path,label,place", *rows]))
    (study,) = blocks(ROOT / "docs" / "studies.md", "yaml")
    (folder / "mine.yaml").write_text(study)
    words = ["train", "photos", "--test-fraction", "0.2", "--weights", "none", "--epochs", "1"]
    result = residua(*words, cwd=folder)
    assert result.stdout == "runs/photos-1\n", result.stderr
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with random weights where downloads of published ones would be."""
    from references import torch_networks

    folder = tmp_path_factory.mktemp("cache")
    for name in PUBLISHED:
        source = SOURCES[name]
        file = folder / "weights" / source.file
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch_networks.state_dict(name), file)
        record = {
            "address": source.address,
            "published": source.digest,
            "size": file.stat().st_size,
            "digest": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}",
            "commit": "",
            "etag": "",
        }
        file.with_name(f"{file.name}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file that Keras wrote."""
    networks = pytest.importorskip("references.keras_networks")
    model = networks.build("keras_mobilenet", 1000, 224)
    networks.randomise(model, seed=0)
    file = tmp_path_factory.mktemp("keras") / "keras.weights.h5"
    model.save_weights(file)
    return file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__")  # of Keras
@pytest.mark.parametrize("name", [name for name in NAMES if commands(ROOT / name)])
def test_every_command_of_a_page_runs(
    name: str,
    prepared: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(cache))
    row = catalogue.row("resnet34")
    narrow = dataclasses.replace(row, config=narrowed(row.config))
    monkeypatch.setitem(catalogue.ROWS, "resnet34", narrow)
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    lines = commands(ROOT / name)
    if any("keras.weights.h5" in line for line in lines):
        shutil.copy(request.getfixturevalue("keras_file"), folder)
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "residua", line
        if any(line.startswith(command) for command in OMITTED):
            parse(words)
            continue
        shorter = SHORTER.get(words[0], ())
        if "--effort" in words or words == ["train", "photos"]:  # --epochs is another strategy
            shorter = ("--size", "32")
        result = residua(*words, *shorter, cwd=folder)
        assert result.status == 0, f"{line}\n{result.stderr}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_tables_and_sentences_are_valid(name: str) -> None:
    names = set(every_command())
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text("utf-8"), flags=re.M | re.S)
    for line in re.findall(r"`residua ([^`]+)`", text):
        if not set("<>[]").intersection(line):
            words = tuple(shlex.split(line))
            if not (words in names or words[-1] == "--help" or words == ("weights",)):
                parse(words)  # else a name alone, as in a sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if blocks(ROOT / name, "python")])
def test_the_python_code_of_a_page_runs(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    for code in blocks(ROOT / name, "python"):
        exec(compile(code, name, "exec"), {})


@pytest.mark.slow
def test_every_file_of_a_run_is_on_its_page(prepared: Path) -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    run = prepared / "runs" / "photos-1"
    files = [file.relative_to(run) for file in run.rglob("*") if file.is_file()]
    assert len(files) > 15
    for file in files:
        shown = f"{file.parts[0]}/" if file.parts[0] == "figures" else file.name
        assert f"`{shown}`" in page, file


@pytest.mark.slow
def test_the_examples_of_weights_convert_run_for_a_default_run(
    prepared: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(cache))
    shutil.copytree(prepared / "photos", tmp_path / "photos")
    assert residua("train", "photos", "--effort", "quick", "--size", "32", cwd=tmp_path).status == 0
    text = residua("weights", "convert", "--help").stdout
    examples = [shlex.split(words) for words in re.findall(r"^   residua (.+?) *$", text, re.M)]
    examples = [words for words in examples if not words[2].endswith(".h5")]  # docs/weights.md
    assert len(examples) == 2
    for words in examples:
        result = residua(*words, cwd=tmp_path)
        assert result.stdout == f"{words[3]}\n", result.stderr


def test_the_extras_in_the_readme_are_those_of_the_package() -> None:
    """residua is in no package index: a command that installs from there cannot work."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (line,) = re.findall(r"^.*pip install '\.\[.*$", readme, re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"test", "lint"}
    assert extras <= set(re.findall(r"`(\w+)`", line))
    for page in PAGES:
        assert not re.search(r"pip install \S?residua", page.read_text("utf-8")), page


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\((?!https?:)(.+?)\)", page.read_text("utf-8")):
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M)
            assert heading in [title.lower().replace(" ", "-") for title in titles], link


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_figures_are_in_the_files_beside_them(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    rows = re.findall(r"^\|(.+)\|\s*\[`(.+?)`\]\((.+?)\)\s*\|$", text, re.M)
    assert len(rows) >= 4
    for cells, title, link in rows:
        file = (ROOT / name).parent / link
        measured = file.read_text("utf-8")
        assert file.name == title
        figures = re.findall(r"\*\*(.+?)\*\*", cells)
        assert figures, cells
        for figure in figures:
            assert figure in measured, f"{figure} is not in {link}"


def test_the_output_in_the_readme_was_measured() -> None:
    (output,) = blocks(ROOT / "README.md", "text")
    measured = ROOT / "benchmarks" / "results" / "readme-example.txt"
    assert output.strip() in measured.read_text("utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


def test_the_page_of_settings_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert page == settings_page(), "run: python tests/test_docs.py"


def settings_page() -> str:
    """docs/settings.md: every setting with its flag, default, values and help."""
    lines = [
        "# Settings",
        "",
        "Every setting is `SECTION.FIELD`: in YAML recipes, in `config.yaml` of a run folder, with "
        "`--set SECTION.FIELD=VALUE`",
        "and in `settings={...}` of the Python API. Settings with a flag are options of "
        "`residua train`. Default `auto`: chosen from",
        "the data; `choices.json` of the run folder records the value with its reason.",
        "",
        "Names of earlier versions are still accepted: "
        + ", ".join(f"`{old}` (now `{new}`)" for old, new in sorted(RENAMED.items()))
        + ".",
    ]
    for section in dataclasses.fields(Config):
        kind = typing.get_type_hints(Config)[section.name]
        lines += ["", f"## {section.name}", "", f"{kind.__doc__.splitlines()[0]}", ""]
        lines += ["| setting | flag | default | description |", "|---|---|---|---|"]
        for item in dataclasses.fields(kind):
            flag = f"`{item.metadata['flag']}`" if item.metadata["flag"] else ""
            default = "auto" if item.default is AUTO else json.dumps(item.default)
            text = item.metadata["help"].replace("|", "\\|")
            lines.append(f"| `{section.name}.{item.name}` | {flag} | `{default}` | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(settings_page(), "utf-8")

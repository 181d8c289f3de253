"""What a person reads is in the field's words; `python tests/test_language.py` lists private ones.

Read are README, docs and other Markdown pages, templates, recipes and study files, the string
literals, docstrings and comments of src, and --help of every command.

    python tests/test_language.py                 every hit as file:line
    python tests/test_language.py src/residua/data  ... of these files and folders alone
    python tests/test_language.py tests           ... of the names of tests
    python tests/test_language.py --names         identifiers that do not name their kind, by file
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "residua"

# A private word as a regular expression, and the field's word for it.
WORDS = {
    r"pictures?|pictured": "image",
    r"judg(?:e|es|ed|ing|ement|ments?)": "evaluate; evaluated on",
    r"(?<!scikit[- ])learn(?:s|t)?": "train; trainable; trained on",
    r"learned": "trained",
    r"learning (?:well|on|again|goes|begins|from (?:images|weights))": "training",
    r"ways? (?:of learning|to learn)|fixed way": "strategy",
    r"teach(?:es|ing)?|taught": "used for training",
    r"looks(?!/)|looked": "(samples seen; contains; is)",
    r"tells?|told(?! apart)": "states; prints; records",
    r"says?|said|saying": "states; prints; records",
    r"ask(?:s|ed|ing)?": "request",
    r"(?<!is )(?<!are )kept|keeps? apart|kept apart": "saved; stored; held out",
    r"held(?![- ]out)": "stored; is",
    r"stands?(?! (?:for|in for))|stood": "is; is stored",
    r"lies|(?:lay|laid|lays)(?! out)": "is; is stored",
    r"(?:chose|chooses|choosing|choose|chosen) nothing": "was never used for model selection",
    r"(?:training|validation|test|learning) parts?": "training/validation/test set or split",
    r"answers?|answered": "prediction",
    r"anew": "again; re-estimated",
    r"(?:goes|go|going|gone|went) on": "continue; resume",
    r"so many(?! times)|(?<=, )of which|as it were|whereof|therein|thereof": "(rewrite)",
    r"of (?:others|ours|theirs|yours)|others'": "third-party; residua's own",
    r"in silence": "silently",
    r"(?:the|an) eye|eyes": "(rewrite)",
    r"(?:is|are) the least": "at least N needed",
    r"makes? of": "(rewrite)",
    r"promis(?:e|es|ed|ing)": "expected gain",
    r"rate of a step": "learning rate",
    r"taps?": "feature layer",
    r"begun": "started",
    r"names (?:rightly|images|ten)": "predicts",
    r"rightly|wrongly": "correctly; misclassified",
    r"images? a second": "images/s",
}
PATTERN = re.compile(
    r"(?<![\w.])(?:" + "|".join(f"({word})" for word in WORDS) + r")(?![\w])", re.I
)
NOUN_CLAUSE = re.compile(r"\A\s*What (?!is\b.*\?)")  # "What the file says." as a docstring

# (file, the words around the hit): why they stay. A path ends in / for everything in a folder.
DEFENDED: dict[tuple[str, str], str] = {
    ("src/residua/data/folder.py", "pictures"): "a name that users give to folders",
    ("src/residua/cli/look.py", "looks"): "the folder that `residua look` writes to by default",
    ("src/residua/studies/results.py", "pictures"): "a key of version 0.1.0",
    ("src/residua/training/progress.py", "judged"): "a key of version 0.1.0",
    ("src/residua/training/progress.py", "pictures"): "a key of version 0.1.0",
    ("src/residua/transfer/result.py", "pictures"): "a key of version 0.1.0",
    ("src/residua/transfer/result.py", "taps"): "a key of version 0.1.0",
    ("src/residua/transfer/result.py", "taught"): "a key of version 0.1.0",
    ("src/residua/templates/serve.html.j2", "Promise"): "a class of JavaScript",
    ("src/residua/networks/residual.py", "tap"): "a term of the residual unit's grammar",
}

NAMES = {
    *("each", "one", "own", "some", "found", "place", "places", "asked", "said", "told", "given"),
    *("kept", "held", "taught", "learnt", "judged", "wanted", "what", "thing", "things"),
}


class Hit(NamedTuple):
    """A private word: where it is, and the field's word for it."""

    file: str
    line: int
    word: str
    better: str
    context: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r} -> {self.better}: {self.context}"


def hits_of(file: str, text: str, first: int = 1, *, is_clause: bool = False) -> Iterator[Hit]:
    """Private words of `text`, which starts at line `first` of `file`."""
    if is_clause and NOUN_CLAUSE.match(text):
        yield Hit(file, first, "What ...", "a noun, or an imperative", text.strip()[:60])
    for match in PATTERN.finditer(text):
        context = " ".join(text[max(match.start() - 30, 0) : match.end() + 30].split())
        if any(
            (file == path or (path.endswith("/") and file.startswith(path)))
            and words in context
            and match.group() in words
            for path, words in DEFENDED
        ):
            continue
        assert match.lastindex is not None
        better = list(WORDS.values())[match.lastindex - 1]
        line = first + text.count("\n", 0, match.start())
        yield Hit(file, line, match.group(), better, context)


def texts_of(file: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether a noun clause is wrong there) of a Python file or of a text file."""
    source = file.read_text("utf-8")
    if file.suffix != ".py":
        yield 1, source, False
        return
    docstrings = set()
    for node in ast.walk(ast.parse(source)):  # a definition before its docstring
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.body and isinstance(node.body[0], ast.Expr):
                docstrings.add(node.body[0].value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, node in docstrings
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def read_files() -> list[Path]:
    """Files whose text a user or a contributor reads."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    code = [path for path in SOURCE.rglob("*") if path.suffix in {".py", ".html", ".j2", ".yaml"}]
    return sorted(pages + code)


def hits(files: Iterable[Path]) -> list[Hit]:
    return [
        hit
        for file in files
        for line, text, is_clause in texts_of(file)
        for hit in hits_of(file.relative_to(ROOT).as_posix(), text, line, is_clause=is_clause)
    ]


def hits_in_test_names(file: Path) -> Iterator[Hit]:
    """Private words in the names of the tests of a file."""
    for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
        if match := re.match(r"\s*def test_(\w+)", line):
            name = file.relative_to(ROOT).as_posix()
            yield from hits_of(name, match[1].replace("_", " "), number)


def vague_names(file: Path) -> Counter[str]:
    """Variables, arguments and attributes of a Python file that do not name their kind."""
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES:
            found[node.id] += 1
        elif isinstance(node, ast.arg) and node.arg in NAMES:
            found[node.arg] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found[node.attr] += node.attr in NAMES
    return +found


def test_text_is_in_the_words_of_the_field() -> None:
    found = hits(read_files())
    assert not found, "\n".join(map(str, found))


def test_names_of_tests_are_in_the_words_of_the_field() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [hit for file in files for hit in hits_in_test_names(file)]
    assert not found, "\n".join(map(str, found))


def test_help_is_in_the_words_of_the_field() -> None:
    from references.command_line import every_command, residua

    for words in ((), *every_command()):
        text = residua(*words, "--help").stdout
        command = " ".join(("residua", *words))
        found = list(hits_of(command, text))
        assert not found, "\n".join(map(str, found))


def test_every_exception_is_needed() -> None:
    files = [*read_files(), *(ROOT / "tests").rglob("test_*.py")]
    texts = {}
    for file in files:
        text = file.read_text("utf-8").replace("_", " ")
        texts[file.relative_to(ROOT).as_posix()] = " ".join(text.split())
    for path, words in DEFENDED:
        assert any(words in text for name, text in texts.items() if name.startswith(path)), words


def main(words: list[str]) -> int:
    folders = [Path(word).resolve() for word in words if word != "--names"] or [ROOT]
    files = [file for file in read_files() if any(file.is_relative_to(one) for one in folders)]
    if "--names" in words:
        for file in files:
            if file.suffix == ".py" and (names := vague_names(file)):
                print(f"{file.relative_to(ROOT)}: {dict(names)}")
        return 0
    found = hits(files)
    if "tests" in words:
        for file in sorted((ROOT / "tests").rglob("test_*.py")):
            found += hits_in_test_names(file)
    print(*found, sep="\n")
    print(f"{len(found)} hits in {len({hit.file for hit in found})} files")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

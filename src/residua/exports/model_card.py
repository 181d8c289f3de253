"""A run -> its model card: Markdown with the front matter of Hugging Face."""

from __future__ import annotations

import yaml

from residua.errors import ResiduaError
from residua.exports.classifier import resizing
from residua.runs.folder import RunFolder
from residua.runs.sources import run_weights


def model_card(run: RunFolder, repository: str) -> str:
    """The text of README.md in a repository: what the model is, its accuracy, how to use it."""
    metadata = run_weights(run).metadata
    name = repository.rpartition("/")[2]
    front = {
        "library_name": "residua",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "residua", metadata.network.name],
    }
    # indented lines are text, whatever a class is called
    classes = "\n".join(f"    {' '.join(text.split())}" for text in metadata.classes)
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {name}

{metadata.network.name}, trained with residua to distinguish {len(metadata.classes)} classes:

{classes}

{_accuracy(run)}

Input: {metadata.preprocessing.size} x {metadata.preprocessing.size} pixels; \
{resizing(metadata.preprocessing)}.

## Use

```sh
pip install 'residua[hub]'
residua predict hub:{repository} image.jpg
```
"""


def _accuracy(run: RunFolder) -> str:
    """The accuracy on held-out images, in a sentence."""
    for split, note in (
        ("test", "a test set that was not used for training or model selection"),
        ("validation", "the validation set, which was also used for model selection"),
    ):
        try:
            scores = run.read_json(f"evaluations/{split}/scores.json", dict)
            low, high = scores["interval"]
            return (
                f"Accuracy {scores['accuracy']:.4f} (95 % CI {low:.4f} to {high:.4f}) on "
                f"{scores['images']:,} images of {note}."
            )
        except (ResiduaError, KeyError, TypeError, ValueError):
            continue
    return "It was not evaluated on held-out images."

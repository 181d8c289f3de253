"""Our own weights files: safetensors whose header says which network, classes and preprocessing."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua import settings
from residua.config import Preprocessing
from residua.errors import ResiduaError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of weights and state files


@dataclass(frozen=True)
class Card:
    """What a weights file says of itself, in its header: enough to use it without the run.

    network: the arguments of `build`. classes: names in the order of the logits. notes: plain data
    of the writer, such as the epoch, or where a training stands.
    """

    network: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: dict[str, Any]


def to_bytes(tensors: Mapping[str, Tensor], card: Card) -> bytes:
    """The content of a file: the tensors, and the card as JSON in the header."""
    from safetensors.torch import save

    described = {
        "format": FORMAT,
        "network": card.network,
        "classes": card.classes,
        "preprocessing": asdict(card.preprocessing),
        "notes": card.notes,
    }
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return save(plain, {"residua": json.dumps(described, ensure_ascii=False)})


def is_native(path: Path) -> bool:
    """Whether a file is safetensors with a card of ours."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if stream.read(1) != b"{" or length > 2**26:
                return False
            return b'"residua"' in stream.read(length)
    except (OSError, ValueError):
        return False


def read_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Tensors and card of a file of ours. Raises ResiduaError that names the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        described = json.loads(content[8 : 8 + length])["__metadata__"]["residua"]
        card = json.loads(described)
    except OSError as error:
        raise ResiduaError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError, struct.error) as error:
        raise ResiduaError(f"{path}: is damaged or no safetensors file: {error}.") from error
    except (KeyError, TypeError) as error:
        raise ResiduaError(f"{path}: was not written by residua: no description in it.") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ResiduaError(
            f"{path}: has format {card.get('format') if isinstance(card, dict) else card!r}, "
            f"expected {FORMAT}: it was written by another version of residua."
        )
    return tensors, Card(
        network=card["network"],
        classes=tuple(card["classes"]),
        preprocessing=settings.preprocessing_from(card["preprocessing"], str(path)),
        notes=card["notes"],
    )

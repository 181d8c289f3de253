"""Images [B, C, H, W] -> logits [B, K]: VGG (Simonyan and Zisserman 2014).

Five stages of 3x3 convolutions, each ending in a max pool, and a dense head.
"""

from __future__ import annotations

from dataclasses import dataclass

from residua.networks.layers import (
    PLAIN_NORM,
    Convolution,
    Initialisation,
    MaxPool,
    Norm,
    chain,
    dense_head,
    initialise,
)
from residua.networks.staged import Staged

WIDTHS = (64, 128, 256, 512, 512)
# table 1, columns A, B, D, E: convolutions per stage
VGG11, VGG13, VGG16, VGG19 = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


@dataclass(frozen=True)
class VGGConfig:
    """A VGG in full.

    convolutions: number of 3x3 convolutions in each of the five stages.
    norm: None for the network of the paper.
    pool: side of the map that the head reads; a larger map is averaged down to it.
    hidden: widths of the head's hidden layers.
    dropout, dropout_everywhere: after each hidden layer, or after the last one only.
    head_norm: a norm after every linear layer, the logits included.
    """

    convolutions: tuple[int, int, int, int, int]
    norm: Norm | None = None
    pool: int = 7
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    dropout_everywhere: bool = True
    head_norm: bool = False
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        Its feature maps have the strides 2, 4, 8, 16, 32, each after its pool.
        """
        letters, norm = "cna" if self.norm else "ca", self.norm or PLAIN_NORM
        stages = []
        for count, width in zip(self.convolutions, WIDTHS, strict=True):
            widths = [channels, *[width] * (count - 1)]
            convolutions = [Convolution(inputs, width, 3, bias=True) for inputs in widths]
            pool = MaxPool(2, 2, "valid")
            stages.append(
                chain(letters * count + "p", convolutions, norm=norm, numbered=True, pool=pool)
            )
            channels = width
        last = len(self.hidden)
        head = dense_head(
            channels * self.pool**2,
            self.hidden,
            classes,
            dropout=self.dropout,
            after=range(1 if self.dropout_everywhere else last, last + 1),
            norm=norm if self.head_norm else None,
        )
        network = Staged(stages=stages, head=head, pool_size=self.pool)
        return initialise(network, self.initialisation)

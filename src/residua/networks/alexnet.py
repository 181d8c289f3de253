"""Images [B, C, H, W] -> logits [B, K]: AlexNet of 2012 (two groups) and 2014 (one).

Five convolutions with biases, three overlapping max pools, a dense head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from residua.networks.layers import (
    Convolution,
    Initialisation,
    MaxPool,
    chain,
    dense_head,
    initialise,
)
from residua.networks.staged import Staged

KERNELS = (11, 5, 3, 3, 3)
STAGES = ((0,), (1,), (2, 3, 4), ())  # the convolutions between max pools
POOL, HIDDEN = 6, 4096  # side of the map that the head reads, width of its hidden layers


@dataclass(frozen=True)
class AlexNetConfig:
    """An AlexNet in full.

    widths, groups: of the five convolutions.
    response_norm: local response normalisation after the first two.
    dropout_first: before the hidden layers of the head, not after them.
    """

    widths: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int] = (1, 1, 1, 1, 1)
    response_norm: bool = False
    dropout: float = 0.5
    dropout_first: bool = True
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        Its four feature maps precede the three pools and the head: sides 55, 27, 13, 6 of 224,
        strides of about 4, 8, 16, 32.
        """
        stages = [_stage(self, number, channels) for number in range(len(STAGES))]
        before, after = ((1, 2), ()) if self.dropout_first else ((), (1, 2))
        head = dense_head(
            self.widths[-1] * POOL**2,
            (HIDDEN, HIDDEN),
            classes,
            dropout=self.dropout,
            before=before,
            after=after,
        )
        return initialise(Staged(stages=stages, head=head, pool_size=POOL), self.initialisation)


# Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", as torchvision
# trained it; and Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural
# networks", where 224 pixels give maps of 55 only with 2 pixels of padding.
ALEXNET = AlexNetConfig((64, 192, 384, 256, 256))
ALEXNET_2012 = AlexNetConfig(
    (96, 256, 384, 384, 256), groups=(1, 2, 1, 2, 2), response_norm=True, dropout_first=False
)


class ResponseNorm(nn.LocalResponseNorm):
    """x / (2 + 1e-4 * sum of 5 squares)^.75 over neighbouring channels (2012, section 3.3).

    PyTorch divides alpha by the number of squares, the paper does not.
    """

    def __init__(self) -> None:
        super().__init__(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)  # not implemented for bfloat16 on the CPU


def _stage(config: AlexNetConfig, number: int, channels: int) -> nn.Sequential:
    widths = (channels, *config.widths)
    convolutions = [
        Convolution(
            widths[index],
            widths[index + 1],
            KERNELS[index],
            stride=1 if index else 4,
            groups=config.groups[index],
            bias=True,
            padding="symmetric" if index else 2,
        )
        for index in STAGES[number]
    ]
    letters = "p" * (number > 0) + "ca" * len(convolutions)
    stage = chain(letters, convolutions, numbered=True, pool=MaxPool(3, 2, "valid"))
    if config.response_norm and number < 2:
        stage.add_module("response_norm", ResponseNorm())
    return stage

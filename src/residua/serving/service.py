"""Image files as bytes, or tensors -> predictions: decoded in threads, run in batches."""

from __future__ import annotations

import asyncio
import functools
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from residua.config.schema import Preprocessing
from residua.data.dataset import Pixels, Unreadable
from residua.data.image import prepared
from residua.errors import ResiduaError
from residua.evaluation.heat import overlay
from residua.evaluation.predictor import Output, Prediction, Predictor, predictor_of
from residua.inference.engine import Floats
from residua.inference.grad_cam import grad_cam
from residua.serving.batcher import Batcher
from residua.serving.limits import Limits, Refused
from residua.serving.metrics import Metrics
from residua.weights.load import Weights

MANY = 1_000_000  # images, for the choice of the engine


@dataclass(frozen=True, eq=False)
class Model:
    """The classifier that is served.

    name: in addresses of the Open Inference Protocol. classes: of the outputs. outputs: K.
    heat_map: uint8 [S, S, C] -> where the evidence for the predicted class is, float32 [S, S] in
    [0, 1], see `grad_cam`; None for an exported file.
    """

    name: str
    classes: tuple[str, ...]
    outputs: int
    preprocessing: Preprocessing
    run: Predictor
    heat_map: Callable[[Pixels], Floats] | None = None

    @classmethod
    def of(cls, weights: Weights, name: str, device: torch.device) -> Model:
        """The model of weights; its predictions are those of `residua predict`. Raises
        ResiduaError if the weights cannot classify."""
        metadata = weights.metadata
        run = predictor_of(weights, device, MANY)
        size, channels = metadata.preprocessing.size, metadata.preprocessing.channels
        noise = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), np.uint8)
        run(noise)  # the engine is chosen before the first request
        explain = functools.cache(lambda: grad_cam(weights, device))  # a network of its own

        def heat_map(pixels: Pixels) -> Floats:
            heats, _ = explain()(pixels[None], None)
            return np.asarray(heats[0])

        return cls(
            name,
            metadata.classes,
            metadata.network.classes,
            metadata.preprocessing,
            run,
            heat_map if weights.exported is None else None,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an input image: (S, S, C)."""
        size = self.preprocessing.size
        return size, size, self.preprocessing.channels


class Service:
    """Decodes images in threads and predicts them in batches."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "decode")
        self._explaining = asyncio.Lock()  # one image at a time
        self._decoding = 0  # images; changed by the server's thread alone
        self.batcher = Batcher(model.run, limits, lambda: self._decoding > 0, metrics.batch)

    def close(self) -> None:
        """Finish what was accepted."""
        self.pool.shutdown()
        self.batcher.close()

    async def read(self, contents: Sequence[bytes]) -> list[Pixels | str]:
        """Files -> uint8 [S, S, C], or the reason why an image is unreadable."""
        if len(contents) > self.limits.images:
            raise self.limits.too_many(len(contents))
        loop = asyncio.get_running_loop()
        self._decoding += len(contents)
        try:
            images = await asyncio.gather(
                *(loop.run_in_executor(self.pool, self._read, content) for content in contents)
            )
        finally:
            self._decoding -= len(contents)
        unreadable = sum(isinstance(image, str) for image in images)
        self.metrics.images("unreadable", unreadable)
        return list(images)

    async def outputs(self, images: Sequence[Pixels]) -> list[Output]:
        """uint8 [S, S, C] each -> an output each. Raises Refused if too many images wait."""
        futures = self.batcher.submit(images)
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        self.metrics.images("predicted", len(outputs))
        return outputs

    async def predict(self, files: Sequence[tuple[str, bytes]], top: int) -> list[Prediction]:
        """(name, content) of files -> a prediction for each, in order."""
        images = await self.read([content for _, content in files])
        readable = [image for image in images if not isinstance(image, str)]
        outputs = iter(await self.outputs(readable))
        return [
            Prediction(name, (), image)
            if isinstance(image, str)
            else next(outputs).prediction(name, top, self.model.classes)
            for (name, _), image in zip(files, images, strict=True)
        ]

    async def explain(self, content: bytes) -> bytes:
        """A file -> the image under the heat map of the predicted class, as a JPEG file.

        Raises Refused if it is unreadable or the network has no heat map.
        """
        (image,) = await self.read([content])
        if isinstance(image, str):
            raise Refused(422, image)
        async with self._explaining:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, self._explain, image)

    def _explain(self, image: Pixels) -> bytes:
        assert self.model.heat_map is not None
        try:
            heat = self.model.heat_map(image)
        except ResiduaError as error:
            raise Refused(422, str(error)) from error
        if not np.isfinite(heat).all():
            raise Refused(422, "the outputs of the network are not finite")
        stream = io.BytesIO()
        Image.fromarray(overlay(image, heat)).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    def _read(self, content: bytes) -> Pixels | str:
        rule = self.model.preprocessing
        try:
            return prepared(content, rule, self.limits.pixels)
        except Unreadable as error:
            return str(error)

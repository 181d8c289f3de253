"""LitServe with a run's model, for serving_load.py: python benchmarks/serving_litserve.py RUN PORT

Decoding, batches and the network are residua's; everything around them is LitServe's.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve
import torch

from residua.data.image import prepared
from residua.runs.sources import open_source
from residua.serving.limits import Limits
from residua.serving.service import Model
from residua.system.console import Console


class Api(litserve.LitAPI):
    """{"image": base64} -> the three most likely classes, as `residua serve` answers."""

    def setup(self, device: str) -> None:
        weights = open_source(sys.argv[1], None, None, None, Console(True))[0]
        self.model = Model.of(weights, "model", torch.device("cpu"))

    def decode_request(self, request):  # an annotation would change what LitServe passes
        return prepared(base64.b64decode(request["image"]), self.model.preprocessing, 10**9)

    def predict(self, images: Any) -> Any:
        return self.model.run(images)

    def encode_response(self, row: Any) -> Any:
        return [row.prediction("image1", 3, self.model.classes).to_json()]


if __name__ == "__main__":
    api = Api(max_batch_size=Limits.batch, batch_timeout=Limits.delay)
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run("127.0.0.1", int(sys.argv[2]), generate_client_file=False, log_level="error")

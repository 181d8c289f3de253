"""A seed -> random draws of this thread that leave torch's generators, which all threads share."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = {"kaiming_uniform_", "normal_", "rand", "randn", "uniform_"}


class Seeded(TorchFunctionMode):
    """Context in which layers are initialised from generators of its own.

    They give the numbers that torch.manual_seed(seed) would give. Other threads are not affected.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if call.__name__ in _DRAWS and options.get("generator") is None:
            target = args[0] if args else options.get("tensor")
            device = target.device if isinstance(target, torch.Tensor) else torch.device("cpu")
            if device.type != "meta":  # where nothing is drawn
                options["generator"] = self._generator(device)
        return call(*args, **options)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]

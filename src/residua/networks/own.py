"""MODULE:FUNCTION, a module of the user's own, or timm:NAME -> a network like any other.

Any file may contain its name, but code is imported only by `own_name`, for a name that the user
gives in a call or on the command line: a `str` read from a file cannot build a network, an
`OwnName` can.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.networks.layers import Initialisation, Random
from residua.networks.staged import Staged

TIMM = "timm"
INSTANCE = "instance"  # instance:CLASS: of a module whose code cannot be named
Factory = Callable[..., nn.Module]
ModelLike = str | nn.Module | Factory  # as users give it


class OwnName(str):
    """The name of a network of the user's own, with the function that builds it.

    factory: number of classes -> module, float [B, C, H, W] -> [B, K].
    """

    __slots__ = ("factory",)
    factory: Factory

    def __deepcopy__(self, memo: object) -> OwnName:
        return self


class Whole(Random, Staged):
    """A module of any kind as a network of one stage, whose map [B, K, 1, 1] are its outputs.

    It gets contiguous tensors, since `view` fails on channels_last ones. What it draws in training,
    such as dropout, comes from `generator` where that is set.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(stages=[module], head=nn.Identity())

    def between(self, x: Tensor, first: int, last: int) -> Tensor:
        """See Staged."""
        if first == last:
            return x
        x = x.contiguous()
        if self.generator is None or not self.training:
            return self.stages[0](x)[..., None, None]  # type: ignore[no-any-return]
        seed = int(torch.randint(2**62, (), generator=self.generator, device=x.device))
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)
            if x.device.type == "cuda":
                torch.cuda.manual_seed(seed)
            return self.stages[0](x)[..., None, None]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OwnConfig:
    """A network of the user's own; implements NetworkConfig."""

    name: str
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Whole:
        """Call the user's function. Raises ResiduaError, also if `name` is a plain str."""
        factory = self.check()
        given = {"channels": channels} if _takes_channels(factory) else {}
        try:
            module = factory(classes, **given)
        except Exception as error:
            raise ResiduaError(
                f"model {self.name}: calling it for {classes} classes failed: {_shown(error)}"
            ) from error
        if not isinstance(module, nn.Module):
            raise ResiduaError(
                f"model {self.name}: returned {type(module).__name__}, expected an nn.Module."
            )
        _check_parameters(self.name, module)
        return Whole(module.train())

    def check(self) -> Factory:
        """The user's function. Raises ResiduaError if the name comes from a file."""
        if not isinstance(self.name, OwnName):
            raise ResiduaError(
                f"model {self.name}: is code outside residua, which is not imported because a file "
                f"names it. {_advice(self.name)}"
            )
        return self.name.factory


def _check_parameters(name: str, module: nn.Module) -> None:
    """Raise ResiduaError if there is nothing to train, or not in float32."""
    parameters = dict(module.named_parameters())
    if not parameters:
        raise ResiduaError(f"model {name}: has no parameters, so it cannot be trained.")
    for key, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ResiduaError(
                f"model {name}: {key} has no shape yet, as in a lazy layer: call the network on an "
                "image first."
            )
        if parameter.dtype != torch.float32:
            raise ResiduaError(
                f"model {name}: {key} is {parameter.dtype}, expected torch.float32: call .float()."
            )


def is_own(name: object) -> bool:
    """Whether a model's name is that of a network outside the catalogue."""
    return isinstance(name, str) and ":" in name


def own_network_name(config: Config) -> str | None:
    """The name of the settings' network, where it is the user's own."""
    return config.network.name if is_own(config.network.name) else None


def own_name(model: ModelLike) -> str:
    """The name of a model, with its function if it is of the user's own: imports what it names.

    A module is copied, not changed, by a training. Raises ResiduaError.
    """
    if isinstance(model, OwnName):
        return model
    if isinstance(model, str):
        return _named(model, _imported(model)) if is_own(model) else model
    if isinstance(model, nn.Module):
        return _named(f"{INSTANCE}:{type(model).__name__}", _Copies(model))
    if not callable(model):
        raise ResiduaError(
            f"model = {model!r}: expected a name, MODULE:FUNCTION, an nn.Module, or a function of "
            "the number of classes that returns one."
        )
    module, attribute = getattr(model, "__module__", ""), getattr(model, "__qualname__", "")
    is_importable = attribute.isidentifier() and module not in ("", "__main__")
    name = f"{module}:{attribute}" if is_importable else f"{INSTANCE}:{attribute or 'model'}"
    return _named(name, model)


def is_named(name: str) -> bool:
    """Whether the code of an own network can be found by its name."""
    return not name.startswith(f"{INSTANCE}:")


@dataclass(frozen=True)
class _Copies:
    """A function that returns copies of a module, whatever the number of classes."""

    module: nn.Module

    def __call__(self, classes: int) -> nn.Module:
        return copy.deepcopy(self.module)


def _named(name: str, factory: Factory) -> OwnName:
    named = OwnName(name)
    named.factory = factory
    return named


def _imported(name: str) -> Factory:
    where, _, what = name.partition(":")
    if where == INSTANCE:
        raise ResiduaError(f"model {name}: {_advice(name)}")
    if where == TIMM:
        return _of_timm(what)
    sys.path.insert(0, "")  # the working directory, as `python -m` does
    try:
        target: Any = importlib.import_module(where)
        for attribute in what.split("."):
            target = getattr(target, attribute)
    except (Exception, SystemExit) as error:
        raise ResiduaError(
            f"model {name}: cannot be imported: {_shown(error)} Expected MODULE:FUNCTION, where "
            "MODULE is installed or in the working directory."
        ) from error
    finally:
        sys.path.remove("")
    if not callable(target) or isinstance(target, nn.Module):
        raise ResiduaError(
            f"model {name}: is {type(target).__name__}, expected a function of the number of "
            "classes that returns an nn.Module."
        )
    return target  # type: ignore[no-any-return]


def _of_timm(name: str) -> Factory:
    try:
        import timm  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except Exception as error:  # it imports torchvision, which must fit torch
        raise ResiduaError(
            f"model {TIMM}:{name}: timm cannot be imported: {_shown(error)} pip install timm"
        ) from error

    def build(classes: int, channels: int) -> nn.Module:
        return timm.create_model(name, num_classes=classes, in_chans=channels)  # type: ignore[no-any-return]

    return build


def _takes_channels(factory: Factory) -> bool:
    try:
        return "channels" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of some built-in functions
        return False


def _advice(name: str) -> str:
    if is_named(name):
        return f"Name it: --model {name}, or model={str(name)!r} in Python."
    return "Only its state dict was saved: give the module again, model=MODULE in Python."


def _shown(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}".rstrip(": ") + "."

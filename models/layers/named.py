"""Modules by the names that a user gives to targets, fields and histories."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Generic, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)
PREFIX = "of_"


class Named(nn.Module, Generic[M]):
    """Modules by name, where any word is a name.

    torch's ModuleDict makes attributes of its keys and so refuses every name that a module or a dict has already, `forward`,
    `type`, `items` or `update` among them, all of which are plain words for what happens in a live room. Here a module is
    kept under `of_` and its name, which is how it stands in a state dict, and is found by its name alone.

    >>> heads = Named({"forward": nn.Linear(2, 1, bias=False)})
    >>> list(heads), list(heads.state_dict())
    (['forward'], ['of_forward.weight'])
    """

    def __init__(self, modules: Mapping[str, M]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(PREFIX + name, module)

    def __getitem__(self, name: str) -> M:
        return cast(M, self._modules[PREFIX + name])

    def __contains__(self, name: str) -> bool:
        return PREFIX + name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._modules)

    def keys(self) -> KeysView[str]:
        return self._by_name().keys()

    def values(self) -> ValuesView[M]:
        return self._by_name().values()

    def items(self) -> ItemsView[str, M]:
        return self._by_name().items()

    def _by_name(self) -> dict[str, M]:
        return {key.removeprefix(PREFIX): cast(M, module) for key, module in self._modules.items()}

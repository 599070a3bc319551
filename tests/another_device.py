"""A device that is not the host, on machines without one: real numbers, and the rules by which CUDA refuses to mix.

A tensor there says that it is on meta, which gradus takes for a GPU and torch's autograd knows, and has its numbers
inside. So whole steps run with their numbers, and what is checked is what a GPU would refuse or wait for: operands on
two devices, unless the one on the host has no dimension or is an index in brackets; numpy of what is there;
page-locked memory of what is there already. Kernels of a GPU's own, such as variable-length attention, it has none.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gradus.model.experts import has_grouped_mm

THERE = torch.device("meta")
_COPIES = {"aten::_to_copy", "aten::copy_"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::bincount"}


class There(Tensor):
    """A tensor of that device. inside: its numbers, on the host."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Self:
        there: Self = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inside.shape, inside.stride(), inside.storage_offset(), dtype=inside.dtype, device=THERE
        )
        there.inside = inside
        return there

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"There({self.inside!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("outside of AnotherDevice")


class AnotherDevice(TorchDispatchMode):
    """What runs inside has that device. waits: operations for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._around = ExitStack()

    def __enter__(self) -> Self:
        self._around.enter_context(_Python(self.waits))
        # Views of a tensor subclass cannot be written to in inference mode.
        self._around.enter_context(patch.object(torch._C, "_InferenceMode", lambda mode: torch.no_grad()))
        has_grouped_mm.cache_clear()  # what meta itself can do is another question
        super().__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        self._around.__exit__(*reason)
        has_grouped_mm.cache_clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_any_there = any(isinstance(tensor, There) for tensor in tensors)
        if name in {"aten::is_pinned", "aten::_pin_memory"}:
            if is_any_there:
                raise RuntimeError("only tensors of the host can be pinned")
            return False if name == "aten::is_pinned" else args[0].clone()
        asked = kwargs.get("device")
        goes_there = is_any_there if asked is None else torch.device(asked).type == THERE.type
        if name in _COPIES:
            source = args[0] if name == "aten::_to_copy" else args[1]
            target_is_there = goes_there if name == "aten::_to_copy" else isinstance(args[0], There)
            is_free = kwargs.get("non_blocking") or (name == "aten::copy_" and any(a is True for a in args[2:]))
            if isinstance(source, There) != target_is_there and not is_free:
                self.waits.append(name)
        elif is_any_there:
            _refuse_strangers(name, args, tensors)
            self.waits += [name] if name in _READS else []
        plain_args, plain_kwargs = tree_map_only(There, lambda tensor: tensor.inside, (args, kwargs))
        if asked is not None:
            plain_kwargs["device"] = torch.device("cpu")
        out = func(*plain_args, **plain_kwargs)
        if "out" in kwargs:
            return kwargs["out"]
        if name.endswith("_") and out is not None:  # in place
            return args[0]
        return tree_map_only(Tensor, lambda tensor: There(tensor.resolve_conj()), out) if goes_there else out


class _Python(TorchFunctionMode):
    """What torch does between Python and that device without asking a dispatch mode."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], There):
            self._waits.append("tolist")
            return args[0].inside.tolist()
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == THERE.type:
            self._waits.append("torch.tensor")
            return There(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


def _refuse_strangers(name: str, args: Any, tensors: list[Tensor]) -> None:
    """RuntimeError where a tensor of the host stands among others, and is neither a number nor an index."""
    indices: set[int] = set()
    if name in _INDEXED and isinstance(args[0], There):
        indices = {id(index) for index in args[1] if index is not None}
    for tensor in tensors:
        if not isinstance(tensor, There) and tensor.dim() and id(tensor) not in indices:
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, found {tensor.shape} on another"
            )

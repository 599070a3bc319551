"""A device that is not the host, on machines without one: real numbers, and the rules by which CUDA refuses to mix.

A tensor there says that it is on meta, which gradus takes for a GPU and torch's autograd knows, and has its numbers
inside. So whole steps run with their numbers, and what is checked is what a GPU would refuse or wait for: operands on
two devices, unless the one on the host has no dimension or is an index in brackets; numpy of what is there;
page-locked memory of what is there already. Kernels of a GPU's own, such as variable-length attention, it has none.
`Apple` is the same as a GPU of a Mac, with what that one lacks.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
import torchgen
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from gradus.model import mps
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


class Apple(AnotherDevice):
    """The same as the GPU of a Mac: what gradus does on MPS, and an error for what torch refuses or gets wrong there.

    Operations without a kernel for MPS in torch's own table of kernels; numbers of 64 bits; fused attention of what is
    not contiguous; products that sum over more than `LONGEST_SUM` terms; what fused AdamW leaves out; what sorting and
    numbers of the host are misread as (pytorch/pytorch#175187, #191929).
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self._around.enter_context(patch.object(mps, "_TYPES", frozenset({THERE.type})))
        self._around.enter_context(_Attention())
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        name = func.name().removeprefix("aten::")
        there = [leaf for leaf in tree_leaves((args, kwargs or {}, out)) if isinstance(leaf, There)]
        if not there:
            return out
        numbers = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and not leaf.dim()]
        if any(not isinstance(number, There) and number.storage_offset() for number in numbers) and name != "copy_":
            raise RuntimeError(f"{name} of a number of the host inside a tensor, which MPS takes for the first there")
        if name.startswith("sort") and not args[0].is_contiguous():
            raise RuntimeError(f"{name} takes no notice of strides on MPS")
        if name.startswith("_fused_adamw_") and (kwargs or {}).keys() & {"grad_scale", "found_inf"}:
            raise RuntimeError(f"{name} leaves grad_scale and found_inf out on MPS")
        if name not in _kernels_of_mps():
            raise NotImplementedError(f"{name} has no kernel for MPS")
        if any(tensor.dtype in (torch.float64, torch.complex128) for tensor in there):
            raise TypeError(f"{name}: MPS has no numbers of 64 bits")
        if name.partition(".")[0] in _PRODUCTS and args[_PRODUCTS[name.partition(".")[0]]].shape[-1] > mps.LONGEST_SUM:
            raise RuntimeError(f"{name} of a sum that is too long for MPS")
        return out


class _Attention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            assert all(tensor.is_contiguous() for tensor in args[:3] if isinstance(tensor, There))
        return func(*args, **kwargs or {})


_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # by the place of the left factor


@cache
def _kernels_of_mps() -> frozenset[str]:
    """Operations that torch computes on MPS: by a kernel for it, or by others alone."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    known = {entry["func"].partition("(")[0]: entry for entry in yaml.load(table.read_text(), yaml.CSafeLoader)}

    def keys(entry: Any) -> set[str]:
        return {key.strip() for names in entry.get("dispatch", {}) for key in names.split(",")}

    found = set()
    for name, entry in known.items():
        whose = keys(entry) | keys(known[entry["structured_delegate"]] if "structured_delegate" in entry else {})
        is_made_of_others = not whose or any(key.startswith("Composite") for key in whose)
        if "MPS" in whose or is_made_of_others:
            found.add(name)
    return frozenset(found)


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

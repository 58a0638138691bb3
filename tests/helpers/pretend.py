"""A pretended GPU: tensors that say they live on ``cuda:0``, hold host memory, and refuse what a GPU's tensors refuse.

Refused are operations over two devices (but for single numbers of elementwise operations, copies, and indices on the host, as
PyTorch itself has it), `numpy`, and random numbers of a generator of the host. What only a GPU's own libraries do is not seen:
cuSPARSE, cuDNN, ASTRA, the order of streams.

To PyTorch's own C++ such a tensor is of the device "meta", for which no driver is asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::set_"}
_MEMORY = 2**33


class Pretended(Tensor):
    """A tensor in host memory that says it is a GPU's."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor):
        places = {}
        if inner.layout == torch.strided:
            places = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device="meta", **places)
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def layout(self) -> torch.layout:
        return self.inner.layout

    is_cuda, is_meta, is_cpu = True, False, False

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def numpy(self, *_args, **_settings):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    __array__ = numpy

    def tolist(self) -> list:
        return self.inner.tolist()

    def new_tensor(self, data, dtype: torch.dtype | None = None) -> "Pretended":
        return Pretended(torch.tensor(data, dtype=dtype or self.dtype))

    def __deepcopy__(self, memo: dict) -> "Pretended":
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))

    def __repr__(self) -> str:
        return f"{self.inner!r} on {GPU}"


class _Dispatch(TorchDispatchMode):
    """Catches what makes tensors of nothing, whose device is in an argument."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """A machine with a GPU, of 8 GiB free, as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("is_available", True),
            ("device_count", 1),
            ("current_device", 0),
            ("mem_get_info", (_MEMORY, 2 * _MEMORY)),
            ("synchronize", None),
            ("_lazy_init", None),
        ):
            patch.setattr(torch.cuda, name, lambda *_args, value=value: value)
        with _Numbered(), _Dispatch():
            yield GPU


class _Numbered(TorchFunctionMode):
    """Gives "cuda" its number, for which PyTorch asks a driver; and moves what `torch.tensor` makes, unseen by any dispatch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tuple(map(_numbered, args)), {key: _numbered(value) for key, value in (kwargs or {}).items()}
        if func not in (torch.tensor, torch.as_tensor):
            return func(*args, **kwargs)
        data, device = args[0], kwargs.pop("device", None)
        if isinstance(data, Pretended):
            moved = data.to(device or GPU, kwargs.get("dtype") or data.dtype)
            return moved.clone() if func is torch.tensor else moved
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


def _numbered(value):
    return GPU if isinstance(value, str | torch.device) and str(value) == "cuda" else value


def close(a, b, tolerance=1e-4):
    """Whether two arrays or tensors, on whatever devices, differ by a share of the largest value of b at most."""
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in (a, b))
    assert np.isfinite(a).all() and np.abs(b).max() > 0
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def _run(func, args: tuple, kwargs: dict):
    name = func._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    here = any(isinstance(x, Pretended) for x in tensors)
    if here:
        _require_one_device(func, args, tensors)
    wanted = kwargs.get("device")
    there = here if wanted is None else _is_gpu(wanted)
    if name == "aten::copy_":
        there = isinstance(args[0], Pretended)
    if there and any(isinstance(x, torch.Generator) for x in tree_leaves((args, kwargs))):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name}).")
    plain = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    if wanted is not None:
        plain["device"] = torch.device("cpu")
    if name == "aten::_efficientzerotensor":
        func = torch.ops.aten.zeros.default  # forward derivatives make zeros without memory, which only PyTorch's C++ knows
    inner_args, plain = tree_map(_inner, (args, plain))
    out = func(*inner_args, **plain)
    if there and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(
                *args, **kwargs
            )  # an operation that changes its tensor's shape: to PyTorch's C++ this tensor has one of its own
    return tree_map(lambda x: _known(x, tensors, there) if isinstance(x, Tensor) else x, out)


def _known(out: Tensor, arguments: list[Tensor], there: bool) -> Tensor:
    """The argument itself where an operation gives one back; else what it made, on the device where it is made."""
    for x in arguments:
        if _inner(x) is out:
            return x
    return Pretended(out) if there else out


def _require_one_device(func, args: tuple, tensors: list[Tensor]) -> None:
    name = func._schema.name
    if name in _COPIES:
        return
    numbers = torch.Tag.pointwise in func.tags or name.startswith("aten::index_put") or name == "aten::fill_"
    checked = tensors
    if "::index" in name and name.split("::")[1].rstrip("_") in ("index", "index_put", "_index_put_impl", "_unsafe_index"):
        if not isinstance(args[0], Pretended) and any(isinstance(x, Pretended) for x in tree_leaves(args[1])):
            raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor (cpu) ({name})")
        checked = [args[0], *[x for x in tree_leaves(args[2:]) if isinstance(x, Tensor)]]
    wrong = [tuple(x.shape) for x in checked if not isinstance(x, Pretended) and (x.ndim > 0 or not numbers)]
    if wrong:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({name}, on the host of shapes {wrong})"
        )


def _inner(x):
    return x.inner if isinstance(x, Pretended) else x


def _is_gpu(device: torch.device | str) -> bool:
    return torch.device(device).type in ("cuda", "meta")

"""The dispatch mode that writes down every operation and every module call while it is active."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from medgraft.cuts.events import ModuleCall, Op, Trace
from medgraft.errors import BackboneError

__all__ = ["Recorder"]


class Recorder(TorchDispatchMode):  # torch leaves its mode untyped
    """Collects operations and module calls while it is active.

    Args:
        network: What is run; hooks are set on its modules by `hooks`.
        example: The input it is run on.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network = network
        self.ops: list[Op] = []
        self.calls: dict[str, list[ModuleCall]] = {}
        self.stack: list[tuple[str, int, int, tuple[int, ...]]] = []
        self.events = 0
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.dims: dict[int, int] = {}
        self.value_of: dict[int, int] = {}
        self.by_storage: dict[int, list[int]] = {}
        # Names of the parameters that a value was computed from, for values the input has no part in
        # (a standardised weight): the product with such a value is still the work of a weighted layer.
        self.sources: dict[int, frozenset[str]] = {}
        self.keep: list[torch.Tensor] = []  # ids stay unique only while the tensors live
        self.buffer_names = frozenset(name for name, _ in network.named_buffers())
        self.names = {_storage(tensor): name for name, tensor in _named_tensors(network)}
        self.input = self._new_value(example)
        self.dependent = {self.input}

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Note the entering and leaving of every module while the context is open."""
        handles = []
        for path, module in self.network.named_modules():
            if path:
                handles.append(module.register_forward_pre_hook(self._entered(path), with_kwargs=True))
                handles.append(module.register_forward_hook(self._left(path, type(module)), always_call=False))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entered(self, path: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Unknown tensors (bare parameters) keep their place: the first one that enters is what a trunk returns.
            inputs = tuple(self._value(leaf) for leaf in _tensors((args, kwargs)))
            self.stack.append((path, len(self.ops), self.events, inputs))
            self.events += 1

        return hook

    def _left(self, path: str, kind: type[nn.Module]) -> Any:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            inner, start, entered, inputs = self.stack.pop()
            self.events += 1
            if inner != path:
                raise BackboneError(f"expected to leave module {inner}, left {path}: hooks out of order.")
            call = ModuleCall(
                path=path,
                kind=kind,
                start=start,
                end=len(self.ops),
                entered=entered,
                left=self.events,
                inputs=inputs,
                outputs=tuple(self._value(leaf) for leaf in _tensors(output)),
            )
            self.calls.setdefault(path, []).append(call)

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        counted = func._overloadpacket in flop_registry
        if not counted:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        leaves = _tensors((args, kwargs))
        inputs = self._values(leaves)
        tensors = frozenset(self.names[key] for leaf in leaves if (key := _storage(leaf)) in self.names)
        result = func(*args, **kwargs)
        outputs = _tensors(result)
        macs = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result) // 2 if counted else 0
        self._write(func, args, inputs, tensors, outputs, _written(func, args, kwargs), int(macs))
        return result

    def _write(
        self,
        func: Any,
        args: Any,
        inputs: tuple[int, ...],
        tensors: frozenset[str],
        outputs: list[torch.Tensor],
        mutated: list[torch.Tensor],
        macs: int,
    ) -> None:
        """Note one operation with the values it makes, and what shares memory with a changed tensor as new values.

        Args:
            func: The operation, as torch dispatches it.
            args: Its positional arguments.
            inputs: Numbers of the values that it reads.
            tensors: Names of the parameters and buffers that it reads.
            outputs: Tensors that it returns.
            mutated: Tensors that it changes in place.
            macs: Its multiply-accumulates.
        """
        written = [self._new_value(tensor) for tensor in mutated]
        aliases = self._renew_aliases(mutated)
        fresh = [self._new_value(out) for out in outputs if all(out is not tensor for tensor in mutated)]
        made = (*written, *fresh)
        name = func._overloadpacket.__name__
        self._note(name, inputs, made, tensors, macs)
        for value in made:
            self.dims[value] = _channels_after(name, args, [self.dims[v] for v in inputs], self.shapes[value])
        for old, new in aliases:
            self._note("alias", (old, *written), (new,), frozenset(), 0)

    def _note(
        self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...], tensors: frozenset[str], macs: int
    ) -> None:
        """Append one operation, and mark whether what it makes depends on the input.

        Args:
            name: Name of the operation.
            inputs: Numbers of the values that it reads.
            outputs: Numbers of the values that it makes.
            tensors: Names of the parameters and buffers that it reads.
            macs: Its multiply-accumulates.
        """
        is_dependent = any(value in self.dependent for value in inputs)
        reads = tensors.union(*(self.sources.get(value, frozenset()) for value in inputs))
        if is_dependent:
            self.dependent.update(outputs)
        else:
            self.sources.update(dict.fromkeys(outputs, reads))
        op = Op(
            name=name,
            inputs=inputs,
            outputs=outputs,
            tensors=tensors,
            macs=macs,
            module=self.stack[-1][0] if self.stack else "",
            has_weight=macs > 0 and is_dependent and any(read not in self.buffer_names for read in reads),
        )
        self.ops.append(op)

    def _renew_aliases(self, mutated: list[torch.Tensor]) -> list[tuple[int, int]]:
        """New values for the other tensors that share memory with what an in-place operation changed."""
        renewed = []
        for tensor in mutated:
            for key in self.by_storage.get(_storage(tensor), []):
                if key != id(tensor):
                    old = self.value_of[key]
                    new = len(self.shapes)
                    self.shapes[new] = self.shapes[old]
                    self.dims[new] = self.dims[old]
                    self.value_of[key] = new
                    renewed.append((old, new))
        return renewed

    def _new_value(self, tensor: torch.Tensor) -> int:
        number = len(self.shapes)
        self.shapes[number] = tuple(tensor.shape)
        self.dims[number] = 0
        if id(tensor) not in self.value_of:
            self.keep.append(tensor)
            self.by_storage.setdefault(_storage(tensor), []).append(id(tensor))
        self.value_of[id(tensor)] = number
        return number

    def _value(self, tensor: torch.Tensor) -> int:
        """The number of a tensor, -1 for one that no recorded operation made."""
        if id(tensor) in self.value_of:
            return self.value_of[id(tensor)]
        shared = self.by_storage.get(_storage(tensor))
        return self.value_of[shared[-1]] if shared else -1

    def _values(self, tree: Any) -> tuple[int, ...]:
        return tuple(value for leaf in _tensors(tree) if (value := self._value(leaf)) >= 0)

    def trace(self, outputs: Any) -> Trace:
        """Everything that was recorded.

        Args:
            outputs: What the entry point returned; its tensors are the trace's outputs.
        """
        return Trace(
            ops=tuple(self.ops),
            calls={path: tuple(calls) for path, calls in self.calls.items()},
            shapes=self.shapes,
            dims=self.dims,
            input=self.input,
            outputs=self._values(outputs),
            num_elements={name: math.prod(p.shape) for name, p in self.network.named_parameters()},
            buffers=self.buffer_names,
        )


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_buffers()
    yield from network.named_parameters()


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _written(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The tensors that an operation changes in place, in the order of its schema.

    Args:
        func: The operation, as torch dispatches it.
        args: Its positional arguments.
        kwargs: Its keyword arguments, by name.
    """
    arguments = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    changed = (a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write)
    return [arguments[name] for name in changed if isinstance(arguments.get(name), torch.Tensor)]


def _channels_after(name: str, args: Any, before: list[int], shape: tuple[int, ...]) -> int:
    """On which axis (+1, -1, 0 unknown) the channels lie, as convolutions and matrix products define it.

    Args:
        name: Name of the operation.
        args: Its positional arguments.
        before: Channel axis of each input value: +1, -1, or 0 where it is unknown.
        shape: Shape of the value it makes, batch axis included.
    """
    if "convolution" in name or "batch_norm" in name:
        return 1
    if name in {"mm", "addmm", "bmm", "native_layer_norm"}:
        return -1
    if name == "permute" and before:
        return _permuted(before[0], list(args[1]), len(shape))
    if name == "transpose" and before:
        order = list(range(len(shape)))
        a, b = args[1], args[2]
        order[a], order[b] = order[b], order[a]
        return _permuted(before[0], order, len(shape))
    return next((axis for axis in before if axis), 0)


def _permuted(axis: int, order: list[int], ndim: int) -> int:
    """Where channel axis +1 or -1 lies after a permutation (0 when it is neither 1 nor last).

    Args:
        axis: Channel axis before: +1, -1, or 0 where it is unknown.
        order: For each axis of the result the axis it came from.
        ndim: Number of axes, batch axis included.
    """
    if axis == 0 or ndim < 3:
        return axis
    source = 1 if axis == 1 else ndim - 1
    position = [index % ndim for index in order].index(source)
    return 1 if position == 1 and ndim > 2 and position != ndim - 1 else (-1 if position == ndim - 1 else 0)

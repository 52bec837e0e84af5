"""Record what a network does with one input: every operation, who called it and which parameters it read.

The forward pass runs once on the meta device (no memory, no arithmetic) under a dispatch mode, which sees the
operations below all Python control flow. It therefore works for any network that runs, where symbolic
tracing stops at the first data-dependent `if`.
"""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from medgraft.errors import BackboneError

__all__ = ["ModuleCall", "Op", "Trace", "trace_network"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One executed operation; values are numbered in the order they appear."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: frozenset[str]
    macs: int
    module: str
    has_weight: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """One call of a submodule: operations `start` (included) to `end` (excluded) ran inside it.

    `entered` and `left` count the entering and leaving of all modules, which orders calls that run no operation.
    """

    path: str
    kind: type[nn.Module]
    start: int
    end: int
    entered: int
    left: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The recorded pass.

    Args:
        ops: In execution order.
        calls: By module path, every call of it in execution order.
        shapes: Shape of each value, batch axis included.
        dims: Of each value, +1 where the channels are known to lie on axis 1, -1 for the last axis, else 0.
        input: The value of the network's input.
        outputs: The values that the entry point returned.
        num_elements: Of every parameter, by name.
        buffers: Names of buffers.
    """

    ops: tuple[Op, ...]
    calls: dict[str, tuple[ModuleCall, ...]]
    shapes: dict[int, tuple[int, ...]]
    dims: dict[int, int]
    input: int
    outputs: tuple[int, ...]
    num_elements: dict[str, int]
    buffers: frozenset[str]


def trace_network(network: nn.Module, input_shape: tuple[int, ...], *, entry: str = "forward") -> Trace:
    """The trace of one evaluation-mode pass of `network`.

    Args:
        network: On any device; it is not changed (a copy runs on the meta device).
        input_shape: (C, *spatial) of one input.
        entry: Name of the method to run, e.g. ``forward_features``.

    Raises:
        BackboneError: When the network cannot process an input of that shape.
    """
    try:
        return _record(_on_meta(network), torch.empty(1, *input_shape, device="meta"), entry)
    except (NotImplementedError, RuntimeError, ValueError, AssertionError, TypeError, IndexError) as meta_error:
        # Some networks build constants on the CPU or read values in forward; those run for real, on zeros.
        try:
            real = copy.deepcopy(network)
            if any(tensor.is_meta for tensor in [*real.parameters(), *real.buffers()]):
                real = real.to_empty(device="cpu")
                for tensor in [*real.parameters(), *real.buffers()]:
                    tensor.data.zero_()
            return _record(real.to("cpu"), torch.zeros(1, *input_shape), entry)
        except (NotImplementedError, RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            raise BackboneError(
                f"expected a network that takes one input of shape {tuple(input_shape)}, got "
                f"{type(error).__name__}: {_first_line(error)} (on the meta device: {_first_line(meta_error)}). "
                "Set the input size the network was made for."
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _on_meta(network: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        if not tensor.is_meta:
            empty = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, memo)


def _record(network: nn.Module, example: torch.Tensor, entry: str) -> Trace:
    network = network.eval()
    recorder = _Recorder(network, example)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # The fused encoder layer of torch hides its matrix products from the recorder.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), recorder.hooks(), recorder:
            outputs = getattr(network, entry)(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return recorder.trace(outputs)


class _Recorder(TorchDispatchMode):
    """Collects operations and module calls while it is active."""

    def __init__(self, network: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
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
        self.names = {t.untyped_storage()._cdata: name for name, t in _named_tensors(network)}
        self.input = self._new_value(example)
        self.dependent = {self.input}

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
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
            self.stack.append((path, len(self.ops), self.events, self._values((args, kwargs))))
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
                outputs=self._values(output),
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
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        inputs = self._values(leaves)
        tensors = frozenset(name for leaf in leaves if (name := self._tensor_name(leaf)))
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        macs = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result) // 2 if counted else 0
        self._write(func, args, kwargs, inputs, tensors, outputs, int(macs))
        return result

    def _write(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        inputs: tuple[int, ...],
        tensors: frozenset[str],
        outputs: list[torch.Tensor],
        macs: int,
    ) -> None:
        mutated = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info and argument.alias_info.is_write and isinstance(value, torch.Tensor)
        ]
        mutated += [
            kwargs[argument.name]
            for argument in func._schema.arguments
            if argument.name in kwargs
            and argument.alias_info
            and argument.alias_info.is_write
            and isinstance(kwargs[argument.name], torch.Tensor)
        ]
        written = [self._new_value(tensor) for tensor in mutated]
        aliases = self._renew_aliases(mutated)
        fresh = [self._new_value(out) for out in outputs if all(out is not tensor for tensor in mutated)]
        made = (*written, *fresh)
        module = self.stack[-1][0] if self.stack else ""
        is_dependent = any(value in self.dependent for value in inputs)
        reads = tensors.union(*(self.sources.get(value, frozenset()) for value in inputs))
        if is_dependent:
            self.dependent.update(made)
        else:
            self.sources.update(dict.fromkeys(made, reads))
        weights = macs > 0 and is_dependent and any(name not in self.buffer_names for name in reads)
        name = func._overloadpacket.__name__
        op = Op(
            name=name, inputs=inputs, outputs=made, tensors=tensors, macs=macs, module=module, has_weight=weights
        )
        self.ops.append(op)
        self._follow_channels(name, args, inputs, made)
        for old, new in aliases:
            alias = Op(
                name="alias",
                inputs=(old, *written),
                outputs=(new,),
                tensors=frozenset(),
                macs=0,
                module=module,
                has_weight=False,
            )
            self.ops.append(alias)

    def _renew_aliases(self, mutated: list[torch.Tensor]) -> list[tuple[int, int]]:
        """New values for the other tensors that share memory with what an in-place operation changed."""
        renewed = []
        for tensor in mutated:
            for key in self.by_storage.get(tensor.untyped_storage()._cdata, []):
                if key != id(tensor):
                    old = self.value_of[key]
                    new = len(self.shapes)
                    self.shapes[new] = self.shapes[old]
                    self.dims[new] = self.dims[old]
                    self.value_of[key] = new
                    renewed.append((old, new))
        return renewed

    def _follow_channels(
        self, name: str, args: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        """Remember on which axis the channels lie, as convolutions and matrix products define it."""
        for value in outputs:
            shape = self.shapes[value]
            if "convolution" in name or "batch_norm" in name:
                self.dims[value] = 1
            elif name in {"mm", "addmm", "bmm", "native_layer_norm"}:
                self.dims[value] = -1
            elif name == "permute" and inputs:
                self.dims[value] = _permuted(self.dims[inputs[0]], list(args[1]), len(shape))
            elif name == "transpose" and inputs:
                order = list(range(len(shape)))
                a, b = args[1], args[2]
                order[a], order[b] = order[b], order[a]
                self.dims[value] = _permuted(self.dims[inputs[0]], order, len(shape))
            else:
                known = [self.dims[v] for v in inputs if self.dims[v]]
                self.dims[value] = known[0] if known else 0

    def _new_value(self, tensor: torch.Tensor) -> int:
        number = len(self.shapes)
        self.shapes[number] = tuple(tensor.shape)
        self.dims[number] = 0
        if id(tensor) not in self.value_of:
            self.keep.append(tensor)
            self.by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(id(tensor))
        self.value_of[id(tensor)] = number
        return number

    def _values(self, tree: Any) -> tuple[int, ...]:
        values = []
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                value = self.value_of.get(id(leaf))
                if value is None:
                    shared = self.by_storage.get(leaf.untyped_storage()._cdata)
                    value = self.value_of[shared[-1]] if shared else None
                if value is not None:
                    values.append(value)
        return tuple(values)

    def _tensor_name(self, tensor: torch.Tensor) -> str:
        return self.names.get(tensor.untyped_storage()._cdata, "")

    def trace(self, outputs: Any) -> Trace:
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


def _permuted(axis: int, order: list[int], ndim: int) -> int:
    """Where channel axis +1 or -1 lies after a permutation (0 when it is neither 1 nor last)."""
    if axis == 0 or ndim < 3:
        return axis
    source = 1 if axis == 1 else ndim - 1
    position = [index % ndim for index in order].index(source)
    return 1 if position == 1 and ndim > 2 and position != ndim - 1 else (-1 if position == ndim - 1 else 0)

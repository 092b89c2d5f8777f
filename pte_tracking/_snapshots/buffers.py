"""Reusable memory for copies of a state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import local_tensor
from pte_tracking._snapshots.plain_state import map_tensors


class Buffers:
    """Memory for one copy of a state. The next copy overwrites it.

    Copies from CUDA devices go into page-locked memory. They are queued on the current stream, after all work queued so
    far and before all work queued later, so the host does not wait for them.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}  # by position in the state
        self._copy_events: list[torch.cuda.Event] = []

    def copy(self, state: Any) -> Any:
        """Copy a plain state.

        Args:
            state: The state.

        Returns:
            A copy with its tensors on the CPU. It is complete after :meth:`wait`.
        """
        buffers: dict[int, Tensor] = {}
        copies: dict[int, tuple[Tensor, Tensor]] = {}  # (source, copy) by address
        devices: set[torch.device] = set()

        def copy_tensor(tensor: Tensor, path: str) -> Tensor:
            if tensor.layout is not torch.strided:
                return tensor.cpu().clone()
            address = local_tensor(tensor).data_ptr()
            if address in copies and _is_same_tensor(tensor, copies[address][0]):
                return copies[address][1]  # Tied weights have two names and stay one tensor in the file.
            buffer = self._buffers.get(len(buffers))
            if buffer is None or not _can_hold(buffer, tensor):
                buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            buffers[len(buffers)] = buffer
            copies[address] = tensor, buffer
            if tensor.is_cuda:
                devices.add(tensor.device)
            local_tensor(buffer).copy_(local_tensor(tensor), non_blocking=tensor.is_cuda)
            return buffer

        copied = map_tensors(state, copy_tensor)
        self._buffers = buffers
        self._copy_events = [torch.cuda.current_stream(device).record_event() for device in devices]
        return copied

    def wait(self) -> None:
        """Wait until the copies queued on devices are complete."""
        for event in self._copy_events:
            event.synchronize()
        self._copy_events = []


def _can_hold(buffer: Tensor, tensor: Tensor) -> bool:
    """Return whether a buffer has the type, shape, and dtype of a tensor."""
    return (
        type(buffer) is type(tensor)
        and buffer.shape == tensor.shape
        and local_tensor(buffer).shape == local_tensor(tensor).shape
        and buffer.dtype == tensor.dtype
    )


def _is_same_tensor(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors at the same address have the same content."""
    return (
        first.numel() > 0
        and first.device == second.device
        and first.dtype == second.dtype
        and first.shape == second.shape
        and first.stride() == second.stride()
    )

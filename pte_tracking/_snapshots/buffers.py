"""A state copied at once, into memory that is used again for the next one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import local_tensor
from pte_tracking._snapshots.plain_state import map_tensors


class Buffers:
    """Holds one copy of a state. The next one goes into the same memory, so the old one has to be done with by then.

    Copies from CUDA devices are queued behind the work under way there, and before all that is queued later, into
    page-locked memory: the host does not wait for them.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}  # by order in the state
        self._copy_events: list[torch.cuda.Event] = []

    def copy(self, state: Any) -> Any:
        """A copy of a plain state, its tensors on the CPU; complete after :meth:`wait`."""
        buffers: dict[int, Tensor] = {}
        copies: dict[int, tuple[Tensor, Tensor]] = {}  # by address: what was copied, and to where
        devices: set[torch.device] = set()

        def copy_tensor(tensor: Tensor, path: str) -> Tensor:
            if tensor.layout is not torch.strided:
                return tensor.cpu().clone()
            address = local_tensor(tensor).data_ptr()
            if address in copies and _is_same_tensor(tensor, copies[address][0]):
                return copies[address][1]  # tied weights are one tensor under two names, and stay one in the file
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
        """Wait until what was queued on devices is done."""
        for event in self._copy_events:
            event.synchronize()
        self._copy_events = []


def _can_hold(buffer: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor fits into the memory of an earlier one."""
    return (
        type(buffer) is type(tensor)
        and buffer.shape == tensor.shape
        and local_tensor(buffer).shape == local_tensor(tensor).shape
        and buffer.dtype == tensor.dtype
    )


def _is_same_tensor(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors at the same address are one."""
    return (
        first.numel() > 0
        and first.device == second.device
        and first.dtype == second.dtype
        and first.shape == second.shape
        and first.stride() == second.stride()
    )

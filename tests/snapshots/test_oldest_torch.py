"""Snapshots contain only what the safe loader of the oldest supported torch accepts."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections import Counter, OrderedDict
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots.plain_state import to_plain

OLDEST_TORCH = "2.6"
#: Data types of torch 2.6, from ``_new_dtypes`` and ``_dtype_to_storage_type_map`` in its ``torch/storage.py``.
DTYPES = """
bfloat16 bits16 bits1x8 bits2x4 bits4x2 bits8 bool complex128 complex32 complex64 float16 float32 float64
float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz int16 int32 int64 int8 qint32 qint8 quint2x4 quint4x2 quint8
uint16 uint32 uint64 uint8
"""
STORAGES = """
BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long QInt32 QInt8 QUInt2x4 QUInt4x2 QUInt8
Short
"""
#: Names from ``_get_allowed_globals`` in ``torch/_weights_only_unpickler.py`` of torch 2.6, without its tensor classes.
ALLOWED = {
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_nested_tensor",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_wrapper_subclass",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.per_channel_affine",
    "torch.per_channel_affine_float_qparams",
    "torch.per_channel_symmetric",
    "torch.per_tensor_affine",
    "torch.per_tensor_symmetric",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    *(f"torch.{name}" for name in DTYPES.split()),
    *(f"torch.{name}Storage" for name in STORAGES.split()),
}
#: Instructions that ``Unpickler.load`` in the same file executes.
INSTRUCTIONS = """
APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST EMPTY_SET
EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS
SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3
"""


def check_pickle(file: Path | io.BytesIO) -> None:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        instructions = list(pickletools.genops(archive.read(name)))
    names = {str(argument).replace(" ", ".") for opcode, argument, _ in instructions if opcode.name == "GLOBAL"}
    assert {name.replace("__builtin__", "builtins") for name in names} - ALLOWED == set()
    assert {opcode.name for opcode, _, _ in instructions} - set(INSTRUCTIONS.split()) == set()


def save(state: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(to_plain(state), file)
    return file


def test_oldest_supported_torch_is_the_one_with_these_names() -> None:
    assert f"torch>={OLDEST_TORCH}" in [re.split(r"[ ;,]", line)[0] for line in requires("pte-tracking") or []]


def test_plain_values_use_names_of_oldest_torch() -> None:
    check_pickle(
        save(
            {
                "numbers": [1, -1, 2**31, 2**70, 2**2039 - 1, 2.5, True, None, 3j, float("nan"), np.float64(1)],
                "texts": ("a", "\u00e4" * 300, b"b", b"\xff" * 300, {"c", b"d"}, set()),
                "torch": [torch.Size([2, 3]), torch.device("cpu"), torch.device("cuda", 1)],
                "containers": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, Counter("aab"), OrderedDict(x=1)],
                (1, "key"): "by tuple",
            }
        )
    )


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", DTYPES.split())
def test_data_types_use_names_of_oldest_torch(name: str) -> None:
    dtype = getattr(torch, name)
    state: dict[str, Any] = {"dtype": dtype}
    if not name.startswith(("q", "bits")):
        state["tensor"] = torch.ones(3).to(dtype)
    check_pickle(save(state))


@pytest.mark.filterwarnings("ignore:Sparse .* support is in beta")
def test_tensors_of_all_layouts_use_names_of_oldest_torch() -> None:
    matrix = torch.eye(4)
    check_pickle(
        save(
            [
                matrix.to_sparse(),
                matrix.to_sparse_csr(),
                matrix.to_sparse_csc(),
                matrix.to_sparse_bsr((2, 2)),
                matrix.to_sparse_bsc((2, 2)),
                matrix.to("meta"),
                matrix.t()[1:, :2],
                matrix[:, :0],
                nn.Parameter(matrix),
                torch.tensor(1j).conj(),
                nn.BatchNorm1d(2).state_dict(),
            ]
        )
    )


def test_snapshot_of_training_uses_names_of_oldest_torch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    manager = pte.ExtensionsManager(
        model,
        2,
        [
            extensions.LogReport(),
            extensions.LRScheduler(scheduler),
            extensions.MinValue("loss"),
            extensions.ParameterStatistics(model),
            extensions.PlotReport(["loss"]),
            extensions.snapshot(),
        ],
        optimizers=optimizer,
        out_dir=tmp_path,
        sinks=["json"],
    )
    loader = torch.utils.data.DataLoader(torch.arange(8.0).reshape(4, 2), batch_size=2, shuffle=True)
    for batch in manager.batches(loader):
        with manager.run_iteration():
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pte.report({"loss": loss})
    snapshots = sorted(tmp_path.glob("snapshot_iter_*"))
    assert len(snapshots) == 2
    for snapshot in snapshots:
        check_pickle(snapshot)


@pytest.mark.parametrize("nested", [False, True])
def test_to_plain_integer_that_torch_cannot_load_raises_type_error(nested: bool) -> None:
    value = -(2**2039)
    with pytest.raises(TypeError, match=r"^large(/0)?: an integer of 2040 bits cannot be saved in a snapshot\. Save"):
        to_plain({"large": [value] if nested else value})

"""States of all global random generators are saved and restored."""

import io
import random
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from pte_tracking._snapshots import rng
from pte_tracking._snapshots.plain_state import to_plain


def draw() -> list[Any]:
    return [
        random.random(),
        random.gauss(0, 1),
        torch.rand(3).tolist(),
        torch.randn(1).item(),
        np.random.rand(3).tolist(),
        np.random.standard_normal(),
    ]


def save_and_load(state: rng.RandomState) -> Any:
    buffer = io.BytesIO()
    torch.save(to_plain(state), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_set_state_loaded_from_file_restores_all_generators() -> None:
    draw()  # Generators of Python and NumPy now have a second normal number in their state.
    state = save_and_load(rng.get_state())
    drawn = draw()
    assert draw() != drawn
    rng.set_state(state)
    assert draw() == drawn


def test_get_state_does_not_advance_generators() -> None:
    rng.get_state()
    state = rng.get_state()
    first = draw()
    rng.set_state(state)
    rng.get_state()
    assert draw() == first


def test_set_state_missing_cuda_devices_are_skipped_with_warning(caplog: Any) -> None:
    state = rng.get_state()
    state["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
    rng.set_state(state)
    assert "CUDA devices" in caplog.text


def test_get_and_set_state_do_not_require_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pte_tracking._snapshots import rng\n"
        "import random; state = rng.get_state(); assert 'numpy' not in state\n"
        "drawn = random.random(); rng.set_state(state | {'numpy': {}}); assert random.random() == drawn"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)

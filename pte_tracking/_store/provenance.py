"""Facts about the program, software, hardware, and job of a run."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pte_tracking._platform.files import user_id
from pte_tracking._platform.gpus import nvidia_driver
from pte_tracking._platform.processes import host_name
from pte_tracking._store.git import GitState
from pte_tracking._store.secrets import mask_arguments, mask_secrets

Level: TypeAlias = Literal["full", "no-diff", "off"]

_VARIABLE = "PTE_TRACKING_PROVENANCE"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_JOB_VARIABLES = {
    "slurm_job_id": "SLURM_JOB_ID",
    "slurm_array_job_id": "SLURM_ARRAY_JOB_ID",
    "slurm_array_task_id": "SLURM_ARRAY_TASK_ID",
    "slurm_nodes": "SLURM_JOB_NODELIST",
    "slurm_restarts": "SLURM_RESTART_COUNT",
    "torchelastic_run_id": "TORCHELASTIC_RUN_ID",
    "torchelastic_restarts": "TORCHELASTIC_RESTART_COUNT",
    "lsf_job_id": "LSB_JOBID",
    "pbs_job_id": "PBS_JOBID",
    "visible_gpus": "CUDA_VISIBLE_DEVICES",
}


def provenance_level() -> Level:
    """Return how much is recorded, which ``PTE_TRACKING_PROVENANCE`` sets.

    Raises:
        ValueError: If the variable has another value.
    """
    level = os.environ.get(_VARIABLE) or "full"
    if level not in ("full", "no-diff", "off"):
        raise ValueError(
            f"{_VARIABLE}: expected 'full', 'no-diff', or 'off', got {level!r}. Unset it to record everything."
        )
    return level  # type: ignore[return-value]  # checked


def describe_process() -> dict[str, str]:
    """Return the host, the command, the script, and the user, as far as known."""
    facts = {
        "host": host_name(),
        "command": " ".join([os.path.basename(sys.executable), *mask_arguments(sys.argv)]),
        "source": _script() or "<interactive>",
    }
    try:
        facts["user"] = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user without a name, as in containers
        facts["user"] = user_id()
    return to_facts(facts)


def source_folders() -> list[str]:
    """Return the directories in which the source code may be: that of the script, and the current directory."""
    script, folders = _script(), []
    if script and os.path.exists(script):
        folders.append(os.path.dirname(script))
    with contextlib.suppress(FileNotFoundError):  # The directory was deleted.
        folders.append(os.getcwd())
    return list(dict.fromkeys(folders))


def describe_session() -> dict[str, str]:
    """Return facts about the software, the hardware, and the job of this process, as far as known."""
    driver, gpus = nvidia_driver()
    return to_facts(
        {
            "python": platform.python_version(),
            "os": _operating_system(),
            "cpu_count": os.cpu_count() or "",
            **_describe_torch(),
            "gpu": ", ".join(f"{count} x {name}" for name, count in Counter(gpus).items()),
            "gpu_driver": driver,
            **{name: os.environ.get(variable, "") for name, variable in _JOB_VARIABLES.items()},
            **_describe_kubernetes(),
        }
    )


def describe_git(state: GitState) -> dict[str, str]:
    """Return facts about a working tree."""
    return to_facts(
        {
            "git_commit": state.commit,
            "git_branch": state.branch,
            "git_remote": state.remote,
            "git_dirty": "" if state.is_dirty is None else str(state.is_dirty).lower(),
            "git_root": state.root,
        }
    )


def to_facts(facts: Mapping[str, object]) -> dict[str, str]:
    """Return the non-empty values as masked texts that a journal can store."""
    texts = {name: mask_secrets(str(value)).encode(errors="replace").decode() for name, value in facts.items()}
    return {name: text for name, text in texts.items() if text}


def _script() -> str:
    return os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c") else ""


def _operating_system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _describe_torch() -> dict[str, str]:
    torch: Any = sys.modules.get("torch")  # not imported here, because a run does not need it
    try:
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "rocm": torch.version.hip}
        versions["cudnn"] = torch.backends.cudnn.version() if torch.version.cuda else None
    except (AttributeError, RuntimeError):  # not imported, or not completely; or the versions do not match
        return {}
    return {name: str(version) for name, version in versions.items() if version}


def _describe_kubernetes() -> dict[str, str]:
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return {}
    try:
        namespace = _NAMESPACE.read_text().strip()
    except OSError:
        namespace = ""
    return {
        "kubernetes_pod": os.environ.get("POD_NAME") or host_name(),
        "kubernetes_namespace": os.environ.get("POD_NAMESPACE") or namespace,
        "kubernetes_job": os.environ.get("JOB_NAME", ""),
    }

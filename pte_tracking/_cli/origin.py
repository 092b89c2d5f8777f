"""Display of the origin of a run."""

from __future__ import annotations

from collections.abc import Mapping

#: Facts on which the values of a run may depend.
_COMPARED = ("git_commit", "git_branch", "git_dirty", "python", "torch", "cuda", "rocm", "cudnn", "gpu", "gpu_driver")
_ENVIRONMENT = {"host": "host {}", "python": "Python {}", "torch": "torch {}", "cuda": "CUDA {}", "gpu": "{}"}
_JOBS = {
    "slurm_job_id": "Slurm job {}",
    "slurm_array_task_id": "array task {}",
    "kubernetes_pod": "Kubernetes pod {}",
    "lsf_job_id": "LSF job {}",
    "pbs_job_id": "PBS job {}",
}


def describe_provenance(values: Mapping[str, str]) -> list[str]:
    """Return lines that show the code, the environment, and the job of the last session.

    Args:
        values: Origin of the session. Empty if it was not recorded.
    """
    lines = []
    if "git_root" in values:
        commit = values.get("git_commit", "")[:10] or "no commit yet"
        branch = f" on {values['git_branch']}" if "git_branch" in values else ""
        changes = " with uncommitted changes" if values.get("git_dirty") == "true" else ""
        lines.append(f"Code: {commit}{branch}{changes}, {values.get('git_remote') or values['git_root']}")
    for title, texts in (("Environment", _ENVIRONMENT), ("Job", _JOBS)):
        if known := [text.format(values[name]) for name, text in texts.items() if name in values]:
            lines.append(f"{title}: {', '.join(known)}")
    if values.get("starts", "1") != "1":
        lines.append(f"Starts: {values['starts']}, including every resume")
    return lines


def select_compared(values: Mapping[str, str]) -> dict[str, str]:
    """Return the facts on which the values of a run may depend."""
    return {name: values[name] for name in _COMPARED if name in values}

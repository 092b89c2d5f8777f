#!/usr/bin/env bash
# Train in a Slurm job that survives preemption and its time limit: sbatch slurm.sh [options of preemption.py]
#
#SBATCH --job-name=pte-tracking
#SBATCH --time=04:00:00
#SBATCH --requeue              # after a preemption, Slurm starts the job again under the same ID
#SBATCH --signal=TERM@120      # SIGTERM 120 s before the time limit, as at a preemption
#SBATCH --open-mode=append     # a restarted job continues the same output file
set -euo pipefail

# Slurm copies the script, so name the directory in which the training script and the runs are located.
cd "${SLURM_SUBMIT_DIR:-.}"
trap : TERM  # This shell waits for the snapshot, too, if Slurm signals it.

status=0
# The job ID is the same after a requeue, so each job has its own run, which every start of the job continues.
srun python -u preemption.py --out-dir "runs/${SLURM_JOB_ID:?}" "$@" || status=$?
if [ "$status" = 143 ]; then  # 128 + SIGTERM: the training has saved its state
    scontrol requeue "$SLURM_JOB_ID" || true  # fails if Slurm has already requeued the job
fi
exit "$status"

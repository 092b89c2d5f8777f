#!/usr/bin/env bash
# Train in a Slurm job that survives preemption and its time limit: sbatch slurm.sh [options of preemption.py]
#
#SBATCH --job-name=pte-tracking
#SBATCH --time=04:00:00
#SBATCH --requeue              # after a preemption, Slurm starts the job again under the same ID
#SBATCH --signal=B:USR1@120    # 120 s before the time limit, this shell receives SIGUSR1
#SBATCH --open-mode=append     # a restarted job continues the same output file
set -euo pipefail

# Slurm copies the script, so name the directory in which the training script and the runs are located.
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"

is_over=false
trap 'is_over=true; kill -TERM "$step"' USR1  # srun forwards SIGTERM to the training, which saves its state
trap : TERM                                   # At a preemption, Slurm signals the training. Wait for it here.

# The job ID is the same after a requeue, so each job has its own run, which every start of the job continues.
srun python -u preemption.py --out-dir "runs/$SLURM_JOB_ID" "$@" &
step=$!
while kill -0 "$step" 2>/dev/null; do  # a signal interrupts wait
    status=0
    wait "$step" || status=$?
done
if $is_over && [ "$status" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

#!/usr/bin/env bash
# On a SLURM cluster, from the repository's directory, in the environment with the packages:
#
#   WORKDIR=/shared/runs/all sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=4:00:00 \
#     launch/slurm.sh --config=configs/mlp.py:all --config.seeds=64
#
# One task per GPU, or one per node; the processes find one another by SLURM's variables.
#SBATCH --job-name=small-net-laboratory
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time limit every task, and not this script, gets SIGTERM; a preemption sends
# it as long before the end as the partition's GraceTime says.
#SBATCH --signal=TERM@120
set -uo pipefail
: "${WORKDIR:?is not set: a directory that all nodes see, or gs://... or s3://...}"

trap : TERM # a signal to this script as well must not end it before the tasks have saved
# JAX ends the others where one dies; srun's own way would hide their exit codes behind 137.
srun --kill-on-bad-exit=0 --wait=60 python -m research.main --workdir="$WORKDIR" "$@"
code=$?

# Saved after a signal (143, 130), or one died: srun has the highest code, 137 of the one that was
# killed, 134 or 75 of the others.
case $code in
  75 | 130 | 134 | 137 | 143)
    if ((${SLURM_RESTART_COUNT:-0} < 50)); then
      echo "exit code $code: requeued, to go on from $WORKDIR" >&2
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"

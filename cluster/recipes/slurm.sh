#!/usr/bin/env bash
# nmf-batch on SLURM: one job that prepares what is new and factorizes it, and requeues itself when it is preempted or
# out of time. Copy it, set IMAGES, STORE and RANK below, and `sbatch slurm.sh`.
#SBATCH --job-name=nmf-batch
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -u

IMAGES=${IMAGES:-photos/}
STORE=${STORE:-faces.zarr}
RANK=${RANK:-99}

attempt() { # run a command; SIGUSR1, 120 s before the time is over, makes it write a checkpoint and end with 75
  "$@" &
  child=$!
  trap 'kill -USR1 "$child" 2>/dev/null' USR1
  trap 'kill -TERM "$child" 2>/dev/null' TERM
  wait "$child" # a signal ends this early, with the child still at work; a child that has ended is remembered
  code=$?
  while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
  return "$code"
}

again() { # exit codes that say: the same command goes on from here; 138 is SIGUSR1 before it could be caught
  case $1 in 75 | 130 | 138 | 143) return 0 ;; esac
  return 1
}

for step in prep run; do
  if [ "$step" = prep ]; then
    attempt nmf-batch prep "$IMAGES" --zarr "$STORE"
  else
    attempt nmf-batch run --zarr "$STORE" -d "$RANK" --workers "${SLURM_CPUS_PER_TASK:-1}" --grace 90s
  fi
  code=$?
  if again "$code"; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then # 3: done, a few images could not be read
    exit "$code"
  fi
done

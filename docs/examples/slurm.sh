#!/bin/bash
# Masks by a Slurm job array: sbatch slurm.sh PHOTOS MASKS, both on a file system that all nodes see.
#SBATCH --job-name=petseg
#SBATCH --array=1-8
#SBATCH --cpus-per-task=16
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=petseg-%A-%a.log

set -eu
# As in --array, and not $SLURM_ARRAY_TASK_COUNT: that is smaller when some of the tasks are run again.
shards=8
# exec, so that Slurm's SIGTERM reaches petseg-batch.
exec petseg-batch "$1" "$2" --shard "$SLURM_ARRAY_TASK_ID/$shards"

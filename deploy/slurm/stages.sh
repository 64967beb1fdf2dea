#!/bin/bash
# The whole run as jobs that wait for each other, without Dask: bash deploy/slurm/stages.sh
# Replace what stands in capitals, here and in the two files beside it.
set -euo pipefail
cd "$(dirname "$0")"

# stage NAME DEPENDENCY ARGUMENTS: submit one job of kedro, and print its number
stage() {
    sbatch --parsable --job-name="$1" --dependency="$2" \
        --partition=PARTITION --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=24:00:00 --requeue \
        --output=LOGS/%x-%j.log --open-mode=append --chdir=/PATH/TO/safetydpo_kedro \
        --wrap=". .venv/bin/activate && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=8 \
            kedro run --env sdxl --only-missing-outputs --pipelines ${*:3}"
}

data=$(stage data singleton dataset_generation)
experts=$(sbatch --parsable --dependency="afterok:$data" experts.slurm)
merges=$(stage merges "afterok:$experts" merging)
shared=$(stage shared "afterok:$data" evaluation \
    --to-outputs evaluation_prompts,reference_features,baseline_concepts)
variants=$(sbatch --parsable --dependency="afterok:$merges:$shared" variants.slurm)
stage report "afterok:$variants" evaluation

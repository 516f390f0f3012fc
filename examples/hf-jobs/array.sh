#!/usr/bin/env bash
# Score a corpus with N jobs of Hugging Face Jobs, each on one GPU, into one folder of an object store. Set what follows and
# run it on your own machine, logged in with `hf auth login`:
#     N=8 MODEL=owner/model DATA='s3://bucket/corpus/*.parquet' OUT=s3://bucket/scores IMAGE=registry/donod-fast:cuda \
#         bash examples/hf-jobs/array.sh
# The jobs need the store's credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are passed on as secrets. Start it again
# with TASKS="3 7" to submit only some tasks; `donod-fast status "$OUT"` names those that are unfinished.
set -euo pipefail

MODEL=${MODEL:?Hub id of the model}
DATA=${DATA:?URL of the corpus}
OUT=${OUT:?URL of the folder for the scores}
IMAGE=${IMAGE:?image made from docker/Dockerfile.cuda with the extra s3}
N=${N:-8}
FLAVOR=${FLAVOR:-a10g-small}

for index in ${TASKS:-$(seq 0 $((N - 1)))}; do
    hf jobs run --detach --flavor "$FLAVOR" --timeout 12h \
        --secrets AWS_ACCESS_KEY_ID --secrets AWS_SECRET_ACCESS_KEY \
        "$IMAGE" donod-fast score "$DATA" --model "$MODEL" --out "$OUT" --shard "$index/$N"
done

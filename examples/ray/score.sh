#!/usr/bin/env bash
# Score a corpus on a running Ray cluster, one worker per GPU. Run it on a machine of the cluster:
#     MODEL=/models/my-model DATA='s3://bucket/corpus/*.parquet' OUT=s3://bucket/scores bash examples/ray/score.sh
# Every node needs donod_fast with its extra `ray` (and `s3` for these URLs), and must see the model and the data.
# Workers, nodes and this process may be lost: run the script again, and it continues where it stopped.
# If the cluster uses token authentication (`ray start` says so), set RAY_AUTH_MODE=token as well.
set -euo pipefail

MODEL=${MODEL:?folder or Hub id of the model}
DATA=${DATA:?file, glob or URL of the corpus}
OUT=${OUT:?folder or URL for the scores; every node must see it}

donod-fast score "$DATA" --model "$MODEL" --out "$OUT" \
    --engine ray --address "${RAY_ADDRESS:-auto}" --ray-workers "${WORKERS:-8}" --cpus-per-worker "${CPUS:-4}"
donod-fast status "$OUT"

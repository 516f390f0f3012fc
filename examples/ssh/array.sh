#!/usr/bin/env bash
# Score a corpus on several machines that share a disk, over ssh. Set what follows and run it on any of them:
#     HOSTS="node1 node2 node3" MODEL=/models/m DATA=/data/corpus.jsonl OUT=/data/scores bash examples/ssh/array.sh
# Run it again after a failure: it takes only what is missing. With GNU parallel instead of ssh, on one machine:
#     parallel donod-fast score "$DATA" --model "$MODEL" --out "$OUT" --shard {}/3 ::: 0 1 2
set -euo pipefail

HOSTS=${HOSTS:?names of the machines, separated by spaces}
MODEL=${MODEL:?folder of the model}
DATA=${DATA:?file, glob or URL of the corpus}
OUT=${OUT:?folder for the scores; every machine must see it}

read -ra hosts <<<"$HOSTS"
processes=()
for index in "${!hosts[@]}"; do
    command=(donod-fast score "$DATA" --model "$MODEL" --out "$OUT" --shard "$index/${#hosts[@]}" --quiet)
    ssh -o BatchMode=yes "${hosts[$index]}" "$(printf '%q ' "${command[@]}")" &
    processes+=($!)
done
failed=0
for process in "${processes[@]}"; do
    wait "$process" || failed=$?
done
exit "$failed"

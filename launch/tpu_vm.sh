#!/bin/bash
# One training on a Cloud TPU pod slice, the same command on every host of it.
#
#   TPU=my-pod ZONE=us-west4-a launch/tpu_vm.sh --config configs/transfer.py:backbone=vit_base_patch16,dataset=tfds:NAME \
#       --data_dir /mnt/shared/tfds --workdir /mnt/shared/runs/x
#
# Edit: TPU, ZONE, and REPOSITORY, the directory on the hosts that holds this repository and its .venv
# (jax[tpu] installed). The work directory must be one that all hosts share (Filestore, or a bucket by gcsfuse).
set -euo pipefail
: "${TPU:?the name of the TPU}" "${ZONE:?its zone}"
REPOSITORY=${REPOSITORY:-vision-backbones}
MOST_RESTARTS=${MOST_RESTARTS:-20}

# gcloud does not hand the status of several hosts on, so each of them says it.
run="cd $(printf %q "$REPOSITORY") && .venv/bin/python -m experiments.train --distributed$(printf ' %q' "$@")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for ((restart = 0; restart <= MOST_RESTARTS; restart++)); do
    gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$run; echo exit status: \$?" |
        tee "$log" || true
    # 75: asked to stop (maintenance, preemption) with the state saved; 143: before there was a state to save. Anything
    # else is the end, good or bad.
    if ! grep -qE '^exit status: (75|143)$' "$log"; then
        ! grep -q '^exit status: [1-9]' "$log" && grep -q '^exit status: 0$' "$log"
        exit
    fi
    echo "asked to stop; starting again in 60 s ($((restart + 1)) of $MOST_RESTARTS)" >&2
    sleep 60
done
exit 75

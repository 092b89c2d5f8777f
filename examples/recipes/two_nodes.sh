#!/usr/bin/env bash
# Train on two nodes as one run. Start the same command on both nodes, in a directory that both can reach:
#
#     bash two_nodes.sh node0            # node0 is one of the two nodes, or node0:29400 with another port
#     bash two_nodes.sh node0 --fsdp     # with options of examples/ddp.py
#
# Rank 0 writes the run to ./result. Starting both commands again continues it from the newest snapshot.
set -euo pipefail
endpoint=${1:?"expected the name of one of the two nodes, such as: bash two_nodes.sh node0"}
shift

# With gloo, the ranks of a restarted group would otherwise connect to the addresses of the previous one.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes 2 --nproc-per-node "${RANKS_PER_NODE:-1}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$endpoint" \
    "$(dirname "$0")/../ddp.py" --resume "$@"

# shellcheck shell=bash
# InfiniBand with ConnectX adapters (DGX and HGX machines). node.sh has set the socket interface; adapters: `ibdev2netdev` lists them.

# The adapters that carry data, by the beginning of their names. Where a node has others for storage or management list the right ones,
# as in =mlx5_0,mlx5_3: an adapter without a route to the other nodes hangs or fails at the first collective.
export NCCL_IB_HCA=${NCCL_IB_HCA:-mlx5}

# An unanswered packet counts as lost after 4.096 us x 2^22 = 17 s (NCCL's own value is 2^20), tried 7 times: a link that retrains must not end a
# run of days.
export NCCL_IB_TIMEOUT=${NCCL_IB_TIMEOUT:-22}

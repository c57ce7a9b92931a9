# shellcheck shell=bash
# RDMA over converged Ethernet. Index and class are the cluster's own: ask its administrators, or look with `show_gids`.

export NCCL_IB_HCA=${NCCL_IB_HCA:-mlx5}       # as in infiniband.sh
export NCCL_IB_TIMEOUT=${NCCL_IB_TIMEOUT:-22} # as in infiniband.sh; a congested Ethernet loses more packets

# Which of an adapter's addresses: often 3 is the one of RoCE v2 over IPv4. A wrong one fails or hangs at the first collective. NCCL since 2.21
# chooses by itself, so it is left alone unless given.
if [[ -n ${AZR_ROCE_GID_INDEX:-} ]]; then export NCCL_IB_GID_INDEX=$AZR_ROCE_GID_INDEX; fi

# The class whose packets the switches do not drop (priority flow control), such as 106 where DSCP 26 is lossless. By default 0, which is not.
if [[ -n ${AZR_ROCE_TRAFFIC_CLASS:-} ]]; then export NCCL_IB_TC=$AZR_ROCE_TRAFFIC_CLASS; fi

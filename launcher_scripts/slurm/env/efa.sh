# shellcheck shell=bash
# Elastic Fabric Adapter (p4d, p5 on AWS). The image must carry libfabric and the aws-ofi-nccl plugin: without the plugin NCCL falls back to TCP
# (NCCL_DEBUG=INFO then says NET/Socket instead of NET/OFI).

# libfabric's provider; it would else take whichever it finds first.
export FI_PROVIDER=${FI_PROVIDER:-efa}

# GPU memory goes to the adapter directly: needed on p4d, the default of newer releases.
export FI_EFA_USE_DEVICE_RDMA=${FI_EFA_USE_DEVICE_RDMA:-1}

# The trainer starts sandbox workers after the adapter is set up, and registered memory must survive that fork.
export FI_EFA_FORK_SAFE=${FI_EFA_FORK_SAFE:-1}

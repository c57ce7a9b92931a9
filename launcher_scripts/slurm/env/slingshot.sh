# shellcheck shell=bash
# HPE Slingshot (Cray EX). NCCL reaches it through the aws-ofi-nccl plugin built against Cray's libfabric; sites ship it as a module: load it in a file
# of your own that sources this one, and give that file's path as AZR_FABRIC.

# Fail rather than fall back to TCP without a word.
export NCCL_NET=${NCCL_NET:-"AWS Libfabric"}
export FI_PROVIDER=${FI_PROVIDER:-cxi}

# The bootstrap goes over the high-speed network too: on many sites nodes reach each other over nothing else.
export NCCL_SOCKET_IFNAME=${AZR_SLINGSHOT_INTERFACE:-hsn0}
export GLOO_SOCKET_IFNAME=${AZR_SLINGSHOT_INTERFACE:-hsn0}

# How libfabric notices that registered memory was freed: the default hooks malloc, which can deadlock with CUDA's allocator.
export FI_MR_CACHE_MONITOR=${FI_MR_CACHE_MONITOR:-userfaultfd}
# Host buffers need not be registered with CUDA, which fails for some of libfabric's.
export FI_CXI_DISABLE_HOST_REGISTER=${FI_CXI_DISABLE_HOST_REGISTER:-1}
# Completions of large collectives overflow the default queue.
export FI_CXI_DEFAULT_CQ_SIZE=${FI_CXI_DEFAULT_CQ_SIZE:-131072}

# One fabric without rails: a message may arrive at another adapter than its own number.
export NCCL_CROSS_NIC=${NCCL_CROSS_NIC:-1}

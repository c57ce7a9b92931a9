# shellcheck shell=bash
# Plain Ethernet without RDMA: enough for one node, or for data parallelism of small models.

# An RDMA adapter that is there but not connected is not tried.
export NCCL_IB_DISABLE=${NCCL_IB_DISABLE:-1}

# One TCP connection does not fill a link of 25 Gbit/s or more. Threads x connections of a thread, at most 64 in all; each thread costs a core.
export NCCL_SOCKET_NTHREADS=${NCCL_SOCKET_NTHREADS:-4}
export NCCL_NSOCKS_PERTHREAD=${NCCL_NSOCKS_PERTHREAD:-4}

"""What `verifiers` finds under the id `absolute-zero`: a module of that name beside azr_nemo, with one taskset, one environment and one harness."""

from azr_nemo.environments.verifiers import AbsoluteZero, AbsoluteZeroTaskset, OneReply

__all__ = ["AbsoluteZero", "AbsoluteZeroTaskset", "OneReply"]

"""Absolute Zero's tasks for trainers of others: the three task types, the proposer and the loop of both, graded in the jail. Without torch."""

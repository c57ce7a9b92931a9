"""Rewards for what a proposed task is like, beside how learnable it is: the published code's, and the user's own."""

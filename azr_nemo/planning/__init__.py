"""Sizes a run before it is queued: pure functions of numbers, from a recipe and the model's shape to memory, time and what would fit."""

"""Every setting with its meaning, default and bounds, and how a configuration is composed and checked. Nothing here imports what is built on it."""

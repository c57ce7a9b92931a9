"""Starting runs from Python: what a launch needs to know (`request`), and NeMo-Run's executors that carry it out (`nemo`, the extra [launch])."""

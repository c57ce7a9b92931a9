"""What runs in the worker process and its forks. Standard library only: nothing here may import `azr_nemo` or site-packages.

The worker imports this folder as the package `jailed`, so its modules import each other relatively.
"""

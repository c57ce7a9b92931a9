"""`python -m azr_nemo` is `azr-nemo`."""

from azr_nemo.cli import main

if __name__ == "__main__":
    main()

"""`python -m dispy`, and how dispy starts itself again: by this file's path."""

import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.realpath(__file__))
    if sys.path[0] == here:  # run by its path: dispy's rooms are not top-level modules
        sys.path[0] = os.path.dirname(here)
    import dispy_all

    dispy_all.main()

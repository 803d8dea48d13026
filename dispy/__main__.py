"""`python -m dispy`, and how dispy starts itself again: by this file's path."""

import sys
from pathlib import Path

if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    if sys.path[0] == here:  # run by its path: dispy's rooms are not top-level modules
        sys.path[0] = str(Path(here).parent)
    import dispy_all

    dispy_all.main()

"""The one entry: patches the process with gevent where its role wants it, then hands over."""

import sys


def main() -> None:
    """Run the command line; `pip` installs this as `dispy`."""
    from dispy.cli import main as command_line

    sys.exit(command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()

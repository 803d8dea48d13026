"""The one entry: patches the process with gevent where its role wants it, then hands over.

Services run patched. A worker is a plain process that runs users' code; `demo`, `bench` and
`run` embed a client, as a user's program does, and must meet what that meets.
"""

import sys

_PLAIN = {"worker", "demo", "bench", "cert", "doctor", "run", "secret"}
# That may be given a secret.
_PROVE = {"node", "run", "scheduler", "status", "nodes", "cancel", "drain", "explain"}


def main() -> None:
    """Run the command line; `pip` installs this as `dispy`."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["worker"]:
        from dispy.worker.main import main as run  # no docopt: it starts in milliseconds
    else:
        if arguments and arguments[0] in _PROVE:
            from dispy.system.arguments import hide_secrets, secret_places

            if secret_places(arguments):
                hide_secrets(arguments)  # before anything takes time: others look at `ps`
        if arguments and arguments[0] not in _PLAIN and not arguments[0].startswith("-"):
            _patch()
        from dispy.cli import main as run
    sys.exit(run(arguments))


def _patch() -> None:
    from gevent import events, monkey

    # Else gevent reads the metadata of every installed package for plugins, at each of its 23
    # events: 60 ms where 80 packages are installed, and more with each of them.
    events.notify_and_call_entry_points = events.notify
    monkey.patch_all(ssl=False)  # 10 ms; TLS is OpenSSL's own here


if __name__ == "__main__":
    main()

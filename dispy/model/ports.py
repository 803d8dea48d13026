"""The ports of dispy 4.6: one a role, with the same number for TCP and UDP."""

CLIENT_PORT = 51347  # UDP: where clients hear announcements
NODE_PORT = 51348  # where a node listens if nothing else was said
SCHEDULER_PORT = 51349  # where a shared scheduler listens for its clients
WEB_PORT = 8181

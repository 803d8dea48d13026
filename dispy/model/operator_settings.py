"""The settings of the commands that ask and steer a shared scheduler (`dispy status` and others).

For the one table in `dispy.model.settings`.
"""

from dispy.model.ports import SCHEDULER_PORT
from dispy.model.setting import Setting

TABLE = (
    Setting(
        room="operator", name="host", kind=str, default="127.0.0.1",
        option="--host", variable="DISPY_SCHEDULER",
        help="name or address of the scheduler's machine",
    ),
    Setting(
        room="operator", name="port", kind=int, default=SCHEDULER_PORT, low=1, high=65535,
        option="--port", variable="DISPY_SCHEDULER_PORT",
        help="its TCP port for client programs",
    ),
    Setting(
        room="operator", name="insecure", kind=bool, default=False, option="--insecure",
        in_file=False,
        help="use a scheduler on another machine without encryption",
    ),
)  # fmt: skip

"""dispy 4's `dispy.config`; it is the module `dispy.model.overrides` under this name."""

import sys

from dispy.model import overrides

sys.modules[__name__] = overrides

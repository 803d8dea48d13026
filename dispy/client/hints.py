"""What to do about a module that a node has not got: the node does not know, this program may."""

import re
import sys

_MISSING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


def with_hint(text: str, node: str) -> str:
    """Return what a node told of a failure, with a last line on the module that it lacks."""
    if "ModuleNotFoundError" not in text:
        return text
    missing = _MISSING.findall(text)
    return f"{text.rstrip()}\n{_hint(missing[-1], node)}" if missing else text


def _hint(name: str, node: str) -> str:
    from dispy.shipping.modules import find_module, is_own_spec

    lacks = f"node {node} has no module {name!r}"
    spec = find_module(name)
    if spec is None:
        return f"{lacks}, and it is not found here either"
    if is_own_spec(spec):
        return (
            f"{lacks}. Here it is {spec.origin or name}: import it and pass it to the cluster, "
            f"depends=[{name}]"
        )
    if name.partition(".")[0] in sys.stdlib_module_names:
        return f"{lacks}, which belongs to Python: that node's Python was built without it"
    return f"{lacks}, which is installed here ({spec.origin or name}): install it on node {node}"

"""The policies that people can choose, by name."""

from dispy.scheduling.fair import FairShare
from dispy.scheduling.policies import EarlyCluster, FirstCome, LongestUnserved, Policy

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (Policy, FairShare, FirstCome, EarlyCluster, LongestUnserved)
}


def policy_of(name: str) -> Policy:
    """Return a new policy of this name, one of POLICIES."""
    return POLICIES[name]()

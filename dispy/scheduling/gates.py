"""Who may start jobs at all: one cluster alone (exclusive), and each user in so many slots.

Whose turn it is, is asked only among those who may. A cluster that may not wants nothing: it is
parked, and woken when it may. A cluster that runs exclusively begins once all that were opened
before it are closed, and those that are opened after it wait until it is closed. For a user's limit
count all slots that the jobs of all clusters of that user need, those that wait on nodes included,
and those that a node collects for a wide job. A wide job that does not fit below the limit has what
comes free of it kept, so that it begins some time.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from dispy.scheduling.records import Account, Cluster, ClusterId
from dispy.scheduling.turns import LOOK, Turn


class Gates:
    """Knows the accounts of users, and which clusters were let in."""

    def __init__(self, most: int | None = None) -> None:
        """most: slots of each user that nothing else is said of; None: any number."""
        self._most = most
        self._accounts: dict[str, Account] = {}
        self._in: dict[ClusterId, Cluster] = {}  # those that were let in
        self._outside: dict[ClusterId, Cluster] = {}  # the first comes next
        self._open: dict[str, Account] = {}  # of which parked clusters may start

    @property
    def is_dirty(self) -> bool:
        """Whether parked clusters are to be woken."""
        return bool(self._open)

    # -- clusters that come and go

    def opened(self, cluster: Cluster) -> None:
        """Let a new cluster in, or have it wait outside."""
        if cluster.owner:
            cluster.account = self._account(cluster.owner)
        self._outside[cluster.cluster_id] = cluster
        cluster.admitted = False
        self._let_in()

    def closed(self, cluster: Cluster) -> list[Cluster]:
        """Forget a cluster; return those that were let in because of it."""
        self._in.pop(cluster.cluster_id, None)
        self._outside.pop(cluster.cluster_id, None)
        account = cluster.account
        if account is not None:
            account.parked.pop(cluster.cluster_id, None)
            if account.claim is cluster:
                account.claim = None
            account.out -= cluster.charged
            cluster.charged = 0
            self.look_at(account)
        return self._let_in()

    def _let_in(self) -> list[Cluster]:
        came = []
        while self._outside:
            cluster = next(iter(self._outside.values()))
            if self._in and (cluster.exclusive or next(iter(self._in.values())).exclusive):
                break
            del self._outside[cluster.cluster_id]
            self._in[cluster.cluster_id] = cluster
            cluster.admitted = True
            came.append(cluster)
        return came

    # -- users' limits

    def limit(self, owner: str, slots: int | None) -> None:
        """Let all clusters of a user have at most so many slots; None: any number."""
        account = self._account(owner)
        account.limit = slots
        self.look_at(account)

    def settle(self, cluster: Cluster) -> None:
        """Take note that its jobs need another number of slots."""
        account = cluster.account
        assert account is not None, "who settles has looked"
        need = cluster.slots_out + cluster.reserved
        less, cluster.charged = cluster.charged - need, need
        account.out -= less
        if less > 0:
            self.look_at(account)

    def park(self, cluster: Cluster, width: int) -> None:
        """Have a cluster wait that may not start a job of this width."""
        account = cluster.account
        if account is None or account.limit is None or not cluster.admitted:
            return  # it is woken when it is let in
        account.parked[cluster.cluster_id] = cluster
        if account.claim in (None, cluster) and account.out < account.limit:
            account.claim, account.claimed = cluster, min(width, account.limit)

    def is_turn_of(self, cluster: Cluster, account: Account) -> bool:
        """Whether it is the turn of a cluster that may start a job; else it is parked as well."""
        if account.claim is cluster:
            account.claim = None
            self.look_at(account)
        if account.limit is None or account.woken is cluster:
            return True
        if not account.parked or account.parked.keys() == {cluster.cluster_id}:
            return True
        account.parked[cluster.cluster_id] = cluster
        self.look_at(account)
        return False

    def look_at(self, account: Account) -> None:
        """Have parked clusters of a user woken, if they may start."""
        if account.parked:
            self._open[account.owner] = account

    def woken(self, turn_of: Callable[[Cluster], Turn]) -> Iterator[Cluster]:
        """Yield the next cluster that may start a job, as long as there is one."""
        while self._open:
            account = next(iter(self._open.values()))
            cluster = _next_of(account, turn_of)
            if cluster is None:
                del self._open[account.owner]
                account.woken = None
                continue
            account.parked.pop(cluster.cluster_id, None)
            account.woken = cluster
            if account.claim is cluster:
                account.claim = None  # it may find no node now; then others go on
            yield cluster

    def _account(self, owner: str) -> Account:
        if owner not in self._accounts:
            self._accounts[owner] = Account(owner, self._most)
        return self._accounts[owner]

    # -- words

    def why(self, cluster: Cluster, width: int) -> str | None:
        """Say why a cluster may not start a job of this width; None: it may."""
        if not cluster.admitted:
            inside = next(iter(self._in.values()))
            if inside.exclusive:
                return f"{inside.name} runs exclusively: no other cluster starts until it is closed"
            if not cluster.exclusive:
                first = next(each for each in self._outside.values() if each.exclusive)
                return f"{first.name} came before, and will run exclusively once it can"
            more = f" and {len(self._in) - 1} more" if len(self._in) > 1 else ""
            return f"{cluster.name} runs exclusively: {inside.name}{more} must be closed before"
        account = cluster.account
        if account is None or account.limit is None or cluster.may_start(width):
            return None
        has = f"its user {account.owner} has {account.out} of at most {account.limit} slots"
        claim = account.claim
        if claim is not None and account.out < account.limit:
            return f"{has}, and what is left is kept for a job of {claim.name}: {account.claimed}"
        return has


def _next_of(account: Account, turn_of: Callable[[Cluster], Turn]) -> Cluster | None:
    if account.claim is not None and not account.claim.wants:
        account.claim = None  # it was cancelled
    if account.claim is not None:
        fits = account.limit is None or account.limit - account.out >= account.claimed
        return account.claim if fits and account.claim.cluster_id in account.parked else None
    if not account.parked or (account.limit is not None and account.out >= account.limit):
        return None
    return min(islice(account.parked.values(), LOOK), key=turn_of)

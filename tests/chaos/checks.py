"""The promises, each a pure function of a run's story that yields how it was broken."""

from collections.abc import Callable, Iterator

from chaos.plan import CRASHES_AT_MOST, DEATHS, LOSES_NODES, ROW
from chaos.story import Fate, Story

from dispy.model.statuses import FINAL, Status, may_follow

MOMENT = 1.0  # seconds, in which a client takes a result and tells it, on a busy machine
MANY = 5  # complaints of one kind that are told
FINALS = {status.name for status in FINAL}


def broken(story: Story) -> list[str]:
    """Return what broke each promise, in lines that begin with the check's name."""
    lines = list[str]()
    for check in CHECKS:
        found = [f"{check.__name__}: {complaint}" for complaint in check(story)]
        lines += found[:MANY]
        if len(found) > MANY:
            lines.append(f"{check.__name__}: and {len(found) - MANY} more")
    return lines


def _named(fate: Fate) -> str:
    runs = ", ".join(
        f"run {run.attempt} on {run.node}{'' if run.ended else ' cut short'}" for run in fate.runs
    )
    kind = "reentrant" if fate.cluster.reentrant else "not reentrant"
    if retries_of(fate) is not None:
        kind += f", retries={retries_of(fate)}"
    return f"job {fate.job.token} ({kind}; {runs or 'never run'})"


def retries_of(fate: Fate) -> int | None:
    """Return what was said of its retries."""
    return fate.cluster.retries if fate.job.retries is None else fate.job.retries


def runs_at_most(fate: Fate) -> int | None:
    """Return how often it may run; None: as often as its nodes are lost."""
    retries = retries_of(fate)
    if retries is not None:
        return 1 + retries
    return None if fate.cluster.reentrant else 1


def may_lose_nodes(story: Story) -> bool:
    """Whether whoever schedules may have given a node up, or says so."""
    said = (story.outputs.get(name, "") for name in ("client", "scheduler"))
    return story.schedule.has(*LOSES_NODES) or any(" is lost: " in text for text in said)


def ends_allowed(fate: Fate, story: Story, recovered: bool = False) -> set[str]:
    """Return the final statuses that a job may have, by its plan and the faults.

    It is the client that has jobs run again: what dies after its end is recovered as it is. A
    machine that is busy with something else may lose a node by itself; the client says so.
    """
    schedule = story.schedule
    loses_nodes = may_lose_nodes(story)
    job, most = fate.job, runs_at_most(fate)
    allowed = {"Finished"}
    if job.deed == "raise" or job.deed == "crash" or (job.deed == "crash once" and most == 1):
        allowed = {"Terminated"}
    if job.cancel_at is not None or fate.cluster.terminate is not None:
        allowed |= {"Cancelled", "Terminated", "Finished"}
        allowed |= {"Abandoned"} if loses_nodes else set()  # it is not run again
    if most is not None and loses_nodes:
        allowed.add("Abandoned")
    if job.node is not None and loses_nodes:
        allowed |= {"Abandoned", "Cancelled"}
    deaths = sum(fault.kind in DEATHS for fault in schedule.faults) + (job.deed == "crash once")
    if deaths >= (most or CRASHES_AT_MOST) or (recovered and deaths):
        allowed.add("Terminated")
    if most is not None and deaths and loses_nodes:
        allowed.add("Terminated")  # some of its runs ended this way, some that way
    return allowed


# -- what is promised of each job


def each_job_ends_once(story: Story) -> Iterator[str]:
    """One final status, told once to each of those who are told, and the same to all."""
    if story.schedule.kills_client:
        for fate in story.fates.values():
            told = [status for _, status, _ in fate.told if status in FINALS]
            if len(told) > 1:
                yield f"{_named(fate)} was told to the callback {len(told)} times: {told}"
        return
    for fate in story.fates.values():
        if fate.was_refused:
            continue
        if len(fate.submitted) != 1 or len(fate.finals) != 1:
            yield f"{_named(fate)}: submitted {len(fate.submitted)} times, {fate.finals}"
            continue
        final = fate.finals[0]
        if final.status not in FINALS:
            yield f"{_named(fate)} never ended: it is {final.status}"
        if final.finish != "set":
            yield f"{_named(fate)} is {final.status} and `finish` is {final.finish}"
        told = [status for _, status, _ in fate.told]
        if told != [final.status]:
            yield f"{_named(fate)} is {final.status}, and its callback was told {told}"
        ends = [status for status in fate.statuses if status in FINALS]
        if ends != [final.status]:
            yield f"{_named(fate)} is {final.status}, and `cluster_status` was told {ends}"


def what_a_killed_client_was_owed_is_recovered(story: Story) -> Iterator[str]:
    """Each job that came to an end on a node that lives is told to the client or recovered.

    What the client had before it was killed is its own affair: a node forgets a result when the
    client's hub has taken it, which may be a moment before a callback has written it down. So
    what ended in the last moment before that is not looked for. What was not acknowledged comes
    again, so a job may be told and recovered; then both say the same. So do two recoveries, of
    which the first was killed after its `keep` had the job.
    """
    if not story.schedule.kills_client or story.schedule.scheduler is not None:
        return
    killed = next((at for at, what in story.faults if what == "kill client"), None)
    if killed is None or story.client_status != -9:
        yield f"the client was to be killed, and ended with status {story.client_status}"
        return
    if story.recovery_status is None:
        return
    # The first recovery may be killed when nodes have forgotten all, by its word, and its file is
    # there still.
    knows = "none of its nodes knows" not in story.outputs["client"]
    over = "is over" if story.recoveries == 1 or knows else story.recovery
    if story.recovery_status != 0 or story.recovery != over:
        yield f"the recovery ended with status {story.recovery_status}, and {story.recovery}"
    lost = {
        what.split()[-1]
        for _, what in story.faults
        if what.startswith(("kill node", "restart node"))
    }
    for fate in story.fates.values():
        told = [(status, judged) for _, status, judged in fate.told]
        came = [(final.status, final.judged) for final in fate.recovered]
        if len(came) > story.recoveries or len(set(came)) > 1:
            yield f"{_named(fate)} was recovered {len(came)} times: {came}"
        if told and came and told[-1] != came[0]:
            yield f"{_named(fate)} was told to be {told[-1]}, and recovered as {came[0]}"
        ends = [run.ended for run in fate.runs if run.ended is not None and run.node not in lost]
        owed = [at for at in ends if not killed - MOMENT < at < killed]
        if owed and not told and not came:
            yield f"{_named(fate)} ended and was neither told nor recovered"


def what_was_taken_long_ago_is_not_recovered(story: Story) -> Iterator[str]:
    """Nodes forget what their client has acknowledged, which it does twice a second at least.

    Where a fault may have kept an acknowledgement from a node, there is nothing to be said.
    """
    killed = next((at for at, what in story.faults if what == "kill client"), None)
    if killed is None or story.schedule.has(*LOSES_NODES) or " is away" in story.outputs["client"]:
        return
    for fate in story.fates.values():
        told = [at for at, status, _ in fate.told if status in FINALS]
        if told and fate.recovered and told[0] < killed - MOMENT:
            yield f"{_named(fate)} was recovered, and told {killed - told[0]:.1f} s before the kill"


def each_end_is_allowed(story: Story) -> Iterator[str]:
    """What became of a job follows from what it is, and what befell it; a failure has a reason."""
    for fate in story.fates.values():
        for final in fate.finals + fate.recovered:
            if final.status not in ends_allowed(fate, story, recovered=final in fate.recovered):
                yield f"{_named(fate)} must not be {final.status}: {final.words}"
            if final.status in ("Terminated", "Abandoned") and not final.words:
                yield f"{_named(fate)} is {final.status} and nothing says why"
            if final.status == "Abandoned" and not any(
                f"n{number}" in final.words for number in range(len(story.schedule.town.cpus))
            ):
                yield f"{_named(fate)} is Abandoned, and no node is named: {final.words}"


def each_result_is_right(story: Story) -> Iterator[str]:
    """A result is what the job must compute, and that of a run which has come to its end."""
    for fate in story.fates.values():
        judged = [judged for _, status, judged in fate.told if status == "Finished"]
        finals = fate.finals + fate.recovered
        judged += [final.judged for final in finals if final.status == "Finished"]
        ended = {f"run {run.attempt}" for run in fate.runs if run.ended is not None}
        for verdict in judged:
            if verdict not in ended:
                yield f"{_named(fate)} has the result of {verdict}"
        if len(set(judged)) > 1:
            yield f"{_named(fate)} has several results: {judged}"


def each_job_runs_no_more_than_it_may(story: Story) -> Iterator[str]:
    """Once if not reentrant; 1 + retries times where that is said; never twice as one run.

    A node that was stopped, and given up, may begin what it has of a reentrant job when it goes
    on, before it is told not to: so runs need not begin in order.
    """
    for fate in story.fates.values():
        most = runs_at_most(fate)
        if most is not None and len(fate.runs) > most:
            yield f"{_named(fate)} ran {len(fate.runs)} times, and may run {most} times"
        attempts = [run.attempt for run in fate.runs]
        if len(set(attempts)) < len(attempts):
            yield f"{_named(fate)} was run twice under one number"


def no_job_runs_again_without_a_reason(story: Story) -> Iterator[str]:
    """That its node or its own process was lost; that the scheduler was killed is none."""
    if may_lose_nodes(story) or story.schedule.has(*DEATHS, "stop worker", "stop nursery"):
        return
    for fate in story.fates.values():
        if len(fate.runs) > 1 and not fate.job.deed.startswith("crash"):
            yield f"{_named(fate)} ran {len(fate.runs)} times, and nothing had befallen it"


def jobs_in_a_row_keep_their_order(story: Story) -> Iterator[str]:
    """Jobs that were submitted for one processor begin as they were submitted, unless they waited
    for a lost node."""
    if may_lose_nodes(story):
        return
    for cluster in story.schedule.clusters:
        mine = [fate for fate in story.fates.values() if fate.cluster is cluster]
        row = [fate for fate in mine if ROW in fate.job.token and len(fate.runs) == 1]
        row.sort(key=lambda fate: fate.submitted[0])
        begun = [fate.job.token for fate in sorted(row, key=lambda fate: fate.runs[0].began)]
        if begun != [fate.job.token for fate in row]:
            yield f"these were submitted in another order than they have begun: {begun}"


def what_was_given_up_is_stopped(story: Story) -> Iterator[str]:
    """A job that runs still when its lost node comes back does not run to its end there.

    Those that linger are let go on when all nodes have run something since they came back.
    """
    for fate in story.fates.values():
        given_up = any(final.status == "Abandoned" for final in fate.finals)
        if fate.job.deed == "linger" and given_up:
            for run in fate.runs:
                if run.ended is not None:
                    yield f"{_named(fate)} was given up, and {run.node} ran it to its end"


def each_finished_job_has_run(story: Story) -> Iterator[str]:
    """At least once; and what was Cancelled has not begun, unless a run before was cut short.

    A program that closes its cluster by force does not wait for a shared scheduler, which may
    just have a job begun.
    """
    for fate in story.fates.values():
        for final in fate.finals:
            if final.status == "Finished" and not fate.runs:
                yield f"{_named(fate)} is Finished"
            if fate.cluster.terminate is not None and story.schedule.scheduler is not None:
                continue
            if final.status == "Cancelled" and fate.runs and runs_at_most(fate) == 1:
                yield f"{_named(fate)} is Cancelled, which means that it had not begun"


def each_order_of_statuses_is_legal(story: Story) -> Iterator[str]:
    """Created first, an end last, each following the one before by the table of the model."""
    for fate in story.fates.values():
        statuses = [Status[name] for name in fate.statuses]
        if statuses and statuses[0] != Status.Created:
            yield f"{_named(fate)} was first told to be {statuses[0].name}"
        for before, after in zip(statuses, statuses[1:], strict=False):
            runs_again = before == after == Status.Running
            if not (may_follow(before, after) or runs_again):
                yield f"{_named(fate)} was told to be {after.name} after {before.name}"


def interim_values_come_in_order(story: Story) -> Iterator[str]:
    """Those of a later run after those of an earlier one, and none after the end."""
    for fate in story.fates.values():
        numbers = [(attempt, number) for _, attempt, number in fate.interim]
        if any(after <= before for before, after in zip(numbers, numbers[1:], strict=False)):
            yield f"{_named(fate)} had its provisional values as {numbers}"
        if fate.told and any(at > fate.told[0][0] for at, _, _ in fate.interim):
            yield f"{_named(fate)} had a provisional value after its end"


def each_node_counts_its_jobs_once(story: Story) -> Iterator[str]:
    """What nodes are said to have done is what came to an end; a result taken twice would count
    twice, though its job ends once."""
    for name, (_, done) in story.closed.items():
        fates = [fate for fate in story.fates.values() if fate.cluster.name == name]
        most = sum(max(1, len(fate.runs)) for fate in fates) + story.probes.get(name, 0)
        if sum(done.values()) > most:
            yield f"cluster {name}: {most} runs, and its nodes have done {done}"


# -- what is promised of the rest


def every_cluster_closes(story: Story) -> Iterator[str]:
    """`close` says so, all nodes are back, and the client ends well."""
    yield from story.others
    if story.schedule.kills_client:
        return
    for cluster in story.schedule.clusters:
        closed, _ = story.closed.get(cluster.name, (None, {}))
        if closed is not True:
            yield f"cluster {cluster.name}: close gave {closed}"
    if story.client_status:
        yield f"the client ended with status {story.client_status}"
    if story.client_status is None:
        yield "the client did not end"


def nothing_is_left(story: Story) -> Iterator[str]:
    """No process, file or connection of a computation on any node."""
    yield from story.left


def a_scheduler_forgets_nobody(story: Story) -> Iterator[str]:
    """It is what it was when it is started again: its clients are known, its journal is whole."""
    for name, marks in (
        ("client", ("has forgotten this program", "it has forgotten", "is refused")),
        ("scheduler", ("put aside", "damaged", "cannot be read any more", "is now ")),
    ):
        for line in story.outputs.get(name, "").splitlines():
            if any(mark in line for mark in marks):
                yield f"{name} says: {line}"


def nobody_has_a_traceback(story: Story) -> Iterator[str]:
    """Of dispy's own, in what nodes and clients write."""
    for name, output in story.outputs.items():
        for mark in ("Traceback", "AssertionError", "never awaited"):
            if mark in output:
                place = output.index(mark)
                yield f"{name} wrote: ...{output[max(0, place - 300) : place + 1500]}"
                break


def logs_name_known_jobs_alone(story: Story) -> Iterator[str]:
    """Nothing runs, or is told, that was not submitted."""
    yield from story.strays
    for fate in story.fates.values():
        if fate.runs and not fate.submitted:
            yield f"{_named(fate)} was not submitted"


CHECKS: tuple[Callable[[Story], Iterator[str]], ...] = (
    each_job_ends_once,
    what_a_killed_client_was_owed_is_recovered,
    what_was_taken_long_ago_is_not_recovered,
    each_end_is_allowed,
    each_result_is_right,
    each_job_runs_no_more_than_it_may,
    no_job_runs_again_without_a_reason,
    jobs_in_a_row_keep_their_order,
    what_was_given_up_is_stopped,
    each_finished_job_has_run,
    each_order_of_statuses_is_legal,
    interim_values_come_in_order,
    each_node_counts_its_jobs_once,
    every_cluster_closes,
    nothing_is_left,
    a_scheduler_forgets_nobody,
    nobody_has_a_traceback,
    logs_name_known_jobs_alone,
)

"""One computation that does whatever each job asks for, so that one cluster serves them all."""

import sys


def longest_word(text):
    """One thing to do."""
    return max(text.split(), key=len)


def count_letters(text, letter="e"):
    """Another."""
    return text.count(letter)


def delegate(name, *arguments, **keywords):
    """What every job runs: pick the function and call it."""
    known = {function.__name__: function for function in (longest_word, count_letters)}
    return known[name](*arguments, **keywords)


if __name__ == "__main__":
    import dispy

    text = " ".join(sys.argv[1:]) or "whatever the weather we weather the weather together"
    with dispy.JobCluster(delegate) as cluster:
        jobs = [
            cluster.submit_job_id("longest", "longest_word", text),
            cluster.submit_job_id("letters", "count_letters", text, letter="t"),
            cluster.submit_job_id("mistake", "no_such_function", text),
        ]
        for job in cluster.as_completed(jobs):
            if job.status == dispy.DispyJob.Finished:
                print(f"{job.id}: {job.result}")
            else:
                print(f"{job.id} failed: {job.exception.splitlines()[-1]}")

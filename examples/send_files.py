"""Let jobs write files, and have them here in the end."""

import os
import sys
import tempfile


def write(number):
    """Write a file in the job's directory and send it; 0 says that the client has it."""
    name = f"table{number}.txt"
    with open(name, "w") as file:
        for factor in range(1, 11):
            print(number, "*", factor, "=", number * factor, file=file)
    sent = dispy_send_file(name)  # noqa: F821  # provided in every job
    os.remove(name)
    return sent, name


if __name__ == "__main__":
    import dispy

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # files are put where the program is when it opens the cluster
        with dispy.JobCluster(write) as cluster:
            jobs = [cluster.submit(number) for number in range(1, count + 1)]
            for job in jobs:
                sent, name = job.get()
                with open(name) as file:
                    print(f"{name}: {len(file.readlines())} lines" if sent == 0 else "not sent")
        os.chdir(os.path.dirname(directory))

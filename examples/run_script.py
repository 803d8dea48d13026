"""Run a script of its own file on the nodes, each job with a file of its own beside it."""

import os
import tempfile

SCRIPT = """\
import sys
with open(sys.argv[1]) as file:
    numbers = [int(line) for line in file]
print("the sum is", sum(numbers))
sys.exit(0 if numbers else 1)
"""

if __name__ == "__main__":
    import dispy

    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        with open("add.py", "w") as file:
            file.write(SCRIPT)
        with dispy.JobCluster("add.py") as cluster:
            jobs = []
            for number in range(3):
                name = f"numbers{number}.txt"
                with open(name, "w") as file:
                    file.writelines(f"{value}\n" for value in range(10 * number))
                job = cluster.submit(name, dispy_job_depends=[name])
                job.id = name
                jobs.append(job)
            for job in jobs:
                job()
                print(job.id, "exit status", job.result, job.stdout.decode().strip())
        os.chdir(os.path.dirname(directory))

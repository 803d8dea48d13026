"""Load data once on each node, and let every job there work on it; clean up at the end.

`setup` runs once on each node, before its first job, and what it makes global is there for all of
them, without a copy. Each node may get files and arguments of its own.
"""

import os
import tempfile

import dispy


class OwnShare(dispy.NodeAllocate):
    """Uses any node, and gives each the file and the arguments that it sets up with."""

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
        """Return how many processors to use; called for each node that is found."""
        self.depends = [words]
        self.setup_args = (os.path.basename(words), name)
        return cpus


def setup(path, node_name):
    """Make `index` for all jobs of this node; it runs where the files are. 0: all is well."""
    global index, home
    with open(path) as file:
        index = {word: number for number, word in enumerate(file.read().split(), 1)}
    os.remove(path)  # it is in memory now
    home = node_name
    return 0


def cleanup(path, node_name):
    """Run on each node after its last job, with the arguments of `setup`."""
    global index
    del index


def look_up(word):
    """Answer from what `setup` has left."""
    return home, index.get(word)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        words = os.path.join(directory, "words.txt")
        with open(words, "w") as file:
            file.write("one two three four five")
        with dispy.JobCluster(
            look_up, nodes=[OwnShare("*")], setup=setup, cleanup=cleanup
        ) as cluster:
            jobs = [(word, cluster.submit(word)) for word in ("three", "five", "seven")]
            for word, job in jobs:
                node, place = job.get()
                print(f"{word} is number {place} of the words on {node}")

"""Count words with two clusters in one program: one maps texts to counts, one adds counts up."""

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "the dog sleeps",
    "a fox is quick and a dog is not",
    "quick quick slow",
]


def count(text):
    """Return how often each word is in a text."""
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def add_up(parts):
    """Return the sum of several counts."""
    total = {}
    for counts in parts:
        for word, number in counts.items():
            total[word] = total.get(word, 0) + number
    return total


if __name__ == "__main__":
    import dispy

    mappers = dispy.JobCluster(count, reentrant=True)
    reducers = dispy.JobCluster(add_up, reentrant=True)
    mapped = [mappers.submit(text) for text in TEXTS]
    halves = [reducers.submit([job.get() for job in mapped[start : start + 2]]) for start in (0, 2)]
    total = add_up(job.get() for job in halves)
    for word in sorted(total, key=lambda word: (-total[word], word))[:4]:
        print(word, total[word])
    mappers.close()
    reducers.close()

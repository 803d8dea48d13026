"""Try many parameters with `map`, look at results as they come, and go on past failures."""


def error_of(guess):
    """Return how far a guess is from the square root of two."""
    if guess < 0:
        raise ValueError(f"{guess} is negative")
    return abs(guess * guess - 2), guess


def guesses():
    """Yield the parameters; they are read only a little ahead of the results."""
    for step in range(-2, 3001):
        yield step / 1000


if __name__ == "__main__":
    import dispy

    best, refused = (float("inf"), None), 0
    with dispy.JobCluster(error_of) as cluster:
        results = cluster.map(guesses())
        while True:
            try:
                best = min(best, next(results))
            except StopIteration:
                break
            except ValueError:
                refused += 1  # `next` goes on behind an item that failed
    print(f"best {best[1]}, {refused} refused")

"""The answers of searches that return n-best lists."""


def one_best(lists):
    """Return the first hypothesis of each n-best list."""
    return [hypotheses[0] for hypotheses in lists]

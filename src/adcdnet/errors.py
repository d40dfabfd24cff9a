"""The one exception a user can cause.

Its message is a single line that says what came, what was needed and what to do. The command line prints it and
ends with exit code 1; from Python it is an ordinary ValueError.
"""


class InputError(ValueError):
    """Input that cannot be used: a file, an image pair, labels, settings or a model file."""

"""The one exception that is shown to the user as a sentence, without a traceback."""


class UserError(Exception):
    """Bad input from outside: names the setting or file, what was expected and what to do. The CLI prints it and exits with 2."""

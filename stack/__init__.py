"""stackctl: a Flask project behind nginx and a WSGI server, with one command."""

__version__ = "0.1.0"

"""The apps beside this one that keep to PEP 3333, watched by wsgiref's validator and by WebTest's lint.

The first part of the path is whom to ask: an app, or a route of the odd one.
"""

import warnings
from wsgiref.validate import validator

import wsgi_odd
import wsgi_plain
import wsgi_reads
import wsgi_valid
from webtest.lint import middleware as lint

warnings.simplefilter("error")  # both warn of what they would rather not see

APPS = {"plain": wsgi_plain.app, "reads": wsgi_reads.app, "valid": wsgi_valid.app}


def app(environ, start_response):
    name = environ["PATH_INFO"].split("/")[1]
    watched = lint(APPS.get(name, wsgi_odd.app))
    # The validator wants read() to be told how much, which PEP 3333 does not.
    return (watched if name == "echo" else validator(watched))(environ, start_response)

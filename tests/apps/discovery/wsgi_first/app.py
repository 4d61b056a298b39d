"""Flask looks here first."""

from flask import Flask

app = Flask("from_wsgi")

"""Two apps, neither of a name that settles it."""

from flask import Flask

front = Flask("front")
admin = Flask("admin")

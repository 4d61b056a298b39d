"""Holds one, under a name that nobody looks for."""

from flask import Flask

site = Flask(__name__)

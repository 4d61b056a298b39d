"""The app of the first page of Flask's documentation."""

from flask import Flask

app = Flask(__name__)

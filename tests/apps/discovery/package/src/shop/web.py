"""Imports its own package by its absolute name."""

from flask import Flask

import shop

site = Flask(shop.__name__)

"""Without a static folder on the disk, at the root, or at all."""

from flask import Flask

app = Flask(__name__)
at_root = Flask(__name__, static_url_path="", static_folder="/tmp")
none = Flask(__name__, static_folder=None)

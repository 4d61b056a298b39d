"""The app stands behind a proxy: what is served is the wrapped one."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

inner = Flask(__name__)
application = ProxyFix(inner)

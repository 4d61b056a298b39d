"""A factory, and no app until it is called."""

from flask import Flask


def create_app(stage: str = "dev", *, debug: bool = False) -> Flask:
    made = Flask(__name__, static_folder=None)
    made.config.update(STAGE=stage, DEBUG=debug)
    return made


def make_shop(stage: str) -> Flask:
    return create_app(stage)


def not_an_app() -> str:
    return "hello"


class Holder:
    inner = Flask("inner")


holder = Holder()

"""The `stackctl` command, and `python -m stack`.

Nothing is imported before a Ctrl-C is taken care of: this file is what one interrupts who starts the wrong thing.
"""


def main() -> None:
    """Runs the command line and ends the process with its exit code; interrupted while that loads, with 130."""
    try:
        from stack.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

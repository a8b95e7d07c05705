"""``python -m polyvec``: the command, where no script is on the path."""

from polyvec.cli.main import run

if __name__ == "__main__":
    run()

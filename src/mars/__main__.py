"""``python -m mars`` is the ``mars`` command."""

from mars.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

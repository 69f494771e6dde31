"""A module that puts an object in its place."""

import sys


class Settings:
    def __init__(self):
        self.rate = 1

    def twice(self):
        return self.rate * 2


sys.modules[__name__] = Settings()

"""Which keys of a config does the code read?"""

from ml_collections import ConfigDict

READ: set[str] = set()


class Recording(ConfigDict):
    """A config that notes every key that is read by name, with those that it lies in."""

    def __init__(self, plain, place=""):
        object.__setattr__(self, "_place", place)
        super().__init__(plain)

    def __getattr__(self, name):
        if not name.startswith("_"):
            READ.add(self._place + name)
        return super().__getattr__(name)

    def __getitem__(self, name):
        READ.add(self._place + name)
        return super().__getitem__(name)

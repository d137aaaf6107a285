"""The methods, one file each. To add one, list it here."""

from zoo.entries.plain import plain
from zoo.entries.ssal import ssal
from zoo.entries.vaal import vaal

ENTRIES = {entry.name: entry for entry in (plain, ssal, vaal)}

"""The methods, one file each. To add one, list it here."""

from zoo.entries.plain import plain
from zoo.entries.vaal import vaal
from zoo.entries.waal import waal

ENTRIES = {entry.name: entry for entry in (plain, vaal, waal)}

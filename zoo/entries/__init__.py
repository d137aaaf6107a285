"""The methods, one file each. To add one, list it here."""

from zoo.entries.ceal import ceal
from zoo.entries.dpe import dpe
from zoo.entries.plain import plain
from zoo.entries.vaal import vaal

ENTRIES = {entry.name: entry for entry in (ceal, dpe, plain, vaal)}

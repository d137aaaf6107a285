"""The methods, one file each. To add one, list it here."""

from zoo.entries.aral import aral
from zoo.entries.bgadl import bgadl
from zoo.entries.ceal import ceal
from zoo.entries.dpe import dpe
from zoo.entries.gaal import gaal
from zoo.entries.llal import llal
from zoo.entries.plain import plain
from zoo.entries.ssal import ssal
from zoo.entries.ta_vaal import ta_vaal
from zoo.entries.vaal import vaal
from zoo.entries.waal import waal

ENTRIES = {entry.name: entry for entry in (aral, bgadl, ceal, dpe, gaal, llal, plain, ssal, ta_vaal, vaal, waal)}

"""The methods, one file each. To add one, list it here."""

from zoo.entries.aral import aral
from zoo.entries.bgadl import bgadl
from zoo.entries.ceal import ceal
from zoo.entries.dpe import dpe
from zoo.entries.gaal import gaal
from zoo.entries.llal import llal
from zoo.entries.plain import plain
<<<<<<< HEAD
from zoo.entries.ssal import ssal
=======
from zoo.entries.ta_vaal import ta_vaal
>>>>>>> main
from zoo.entries.vaal import vaal
from zoo.entries.waal import waal

<<<<<<< HEAD
ENTRIES = {entry.name: entry for entry in (plain, ssal, vaal)}
=======
ENTRIES = {entry.name: entry for entry in (aral, bgadl, ceal, dpe, gaal, llal, plain, ta_vaal, vaal, waal)}
>>>>>>> main

"""Run folders: files that are whole or not there, which run a folder holds, and who works in it now.

Every step of the pipeline works in a folder of its own, and all keep to one protocol:

    FOLDER/run.json    what decides the results (the identity), written before any work
    FOLDER/...         files and folders, each written beside its place and renamed
    FOLDER/RESULT      written last: where it is, the run is finished
    .FOLDER.claim      beside the folder, while a process works in it: who, where and since when

Steps claim (`pipelines.steps`, and `register`); the functions they call and the workers of these do not. Folders may lie on
a file system that many machines share (NFS included): nothing here needs locks, only that linking and renaming are atomic.
They may lie in a store of objects too (`pipelines.places`), where files are whole as they are, and claims are tickets
(`pipelines.runs.tickets`).
"""

from pipelines.runs.claims import Holder, claim, this_process
from pipelines.runs.files import discard, read_json, sweep, write_json, write_text, written
from pipelines.runs.identity import RUN, RunFolder, differences, told
from pipelines.runs.noted import DamagedFile, FileNote

__all__ = [
    "RUN",
    "DamagedFile",
    "FileNote",
    "Holder",
    "RunFolder",
    "claim",
    "differences",
    "discard",
    "read_json",
    "sweep",
    "this_process",
    "told",
    "write_json",
    "write_text",
    "written",
]

"""Copies of a hub's data folder: made while the hub runs, verified, and restored.

A folder of backups has one folder for each backup, and the artifacts of all of them once::

    blobs/ab/ab12...            artifacts, as in the data folder
    2026-11-30T12-00-00.000Z/   hub.sqlite, hub.secret, operator.token, ..., backup.json

``backup.json`` is written last: a folder without it is unfinished.
"""

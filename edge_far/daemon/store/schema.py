"""The tables of the store, as one migration after the other; `user_version` counts those applied.

A migration that has shipped is never edited: a change is a new entry at the end. docs/explain/adaptation.md explains
the tables.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

MIGRATIONS = (
    # 1: what arrives through the spool
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE examples (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,          -- identity.example_key
        text TEXT NOT NULL,
        text_pair TEXT,
        label TEXT NOT NULL,
        held_out INTEGER NOT NULL,         -- identity.is_held_out, 0 or 1
        change INTEGER NOT NULL UNIQUE,    -- grows with every insertion and correction
        corrections INTEGER NOT NULL DEFAULT 0,
        file TEXT NOT NULL,
        line INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        received_s REAL NOT NULL,          -- the store's clock
        set_aside TEXT                     -- why it is not used, or NULL
    );
    CREATE TABLE predictions (
        id TEXT PRIMARY KEY,               -- the application's own name for it
        text TEXT NOT NULL,
        text_pair TEXT,
        prediction TEXT,
        feedback TEXT,                     -- 'wrong' until a label arrives, or NULL
        bytes INTEGER NOT NULL,
        received_s REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE quarantine (
        id INTEGER PRIMARY KEY,
        file TEXT NOT NULL,
        line INTEGER NOT NULL,
        reason TEXT NOT NULL,
        excerpt BLOB NOT NULL,             -- the line's first bytes
        bytes INTEGER NOT NULL,            -- length of the whole line
        received_s REAL NOT NULL
    );
    CREATE TABLE spool_files (
        name TEXT PRIMARY KEY,             -- in .ingest
        position INTEGER NOT NULL,         -- bytes already committed
        line INTEGER NOT NULL,             -- lines already committed
        done INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    # 2: what a cycle needs
    """
    CREATE TABLE replay (
        key BLOB PRIMARY KEY,
        text TEXT NOT NULL,
        text_pair TEXT,
        label TEXT NOT NULL,
        held_out INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE cycles (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 1,
        change INTEGER NOT NULL,           -- the highest one this cycle trains on
        base_release TEXT NOT NULL,
        candidate_release TEXT,
        outcome TEXT,                      -- released, rejected, failed, discarded; NULL while under way
        details TEXT NOT NULL DEFAULT '{}',-- JSON: plan, figures, reasons
        started_s REAL NOT NULL,
        updated_s REAL NOT NULL
    );
    """,
    # 3: labels that took a place of the bundle's
    """
    CREATE TABLE new_labels (
        name TEXT PRIMARY KEY,
        place TEXT NOT NULL UNIQUE,        -- the bundle's name of the output
        taken_s REAL NOT NULL
    ) WITHOUT ROWID;
    """,
)

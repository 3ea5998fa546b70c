"""Periodic adaptation: spool, store, conditions, cycle, gate, releases (docs/adaptation.md)."""

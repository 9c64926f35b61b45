"""Many seeded attempts to break runs, records and folders, which take minutes: `python -m tests.campaign`."""

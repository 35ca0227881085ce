"""The sources of data sets, one per file; each is imported only when it is used."""

"""Where data sets come from, one source a file; each imported when it is used."""

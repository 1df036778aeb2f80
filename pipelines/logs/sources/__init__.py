"""The field's public data sets, read as their owners ship them: one file each, and a data set of anybody's own."""

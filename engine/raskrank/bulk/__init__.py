"""Files of pairs, scored part by part: in bounded memory, and so that a run that was stopped goes on where it was.

job       what is asked for
sources   the files of the input, and how they are recognized
part      some rows of a file, scored and written together
plan      the parts of all files: a reader for each format, parquet and lines
scoring   rows to scores
writing   a file that is whole or absent
journal   which parts are done, and of what
running   one part after another, in this process
cluster   the same on Ray, by actors with cores of their own
summary   what it took
"""

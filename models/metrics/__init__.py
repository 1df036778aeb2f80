"""How good predictions are: ranking, calibration, errors, evenness over levels and stages, and alarms.

`evaluation` gathers rows and computes everything; `binary` and `value` hold the metrics of one target, `expected` those of a
binary one whose true probabilities are known, `ranking` what is
computed inside of lists, `calibration` the curve of both kinds of target; `names` says which metrics there are and which way
each of them is better. `sums` and `ordering` are what all of them stand on.

Every metric is computed in two halves, so that a validation split can be divided among workers: a worker summarises its
own rows (sums, counts and rows sorted by prediction), summaries are added, and the metrics follow from the sum. Sums are
exact (`sums`), so the result has the same bits for any number of workers and any order of rows.
"""

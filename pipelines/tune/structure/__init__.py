"""Search for the graph of targets (Wang et al. 2019, DBMTL, Sec. 2.3): the steps, the trainings they ask for, what is left."""

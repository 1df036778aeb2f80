"""The tables of papers, each made in several simulated worlds by one command (`jobs.paper`)."""

from pipelines.papers.again import again
from pipelines.papers.carry import carry_out, overview, table_of
from pipelines.papers.study import Study

__all__ = ["Study", "again", "carry_out", "overview", "table_of"]

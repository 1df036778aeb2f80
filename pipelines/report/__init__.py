"""The pages that evaluation, comparisons and searches leave: entries, words, tables, figures and their templates."""

"""Pieces of HTML, made from plain data by pure functions; what came from outside is escaped here and nowhere else."""

"""The end-to-end table on the user's own machine: what scoring costs, beside what else could be run.

``settings.py`` says what is asked for, ``shapes.py`` and ``models.py`` make models with random weights,
``variants.py`` the scorers of one (plain, compiled, float8), ``corpus.py`` makes corpora of known lengths,
``work.py`` counts operations, ``programs.py`` and ``paper_loop.py`` hold what is timed, ``timing.py`` takes it in
turns, ``table.py`` makes rows of the times, ``record.py`` writes them to a CSV file, ``picture.py`` draws that, and
``run.py`` does it all. ``python -m donod_fast.benchmark`` is the command line of a machine without typer.
"""

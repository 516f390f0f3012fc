"""End-to-end benchmark on the user's own machine: the cost of scoring, compared with alternatives.

``settings.py`` has the settings, ``models/shapes.py`` and ``models.py`` build models with random weights,
``variants.py`` builds the scorers of a model (plain, compiled, float8), ``corpus.py`` makes corpora of known lengths,
``work.py`` counts operations, ``programs.py`` and ``paper_loop.py`` define the timed programs, ``timing.py`` runs them
in turns, ``table.py`` converts the times to rows, ``record.py`` writes them to a CSV file, ``picture.py`` draws it, and
``run.py`` runs the benchmark. ``python -m donod_fast.benchmark`` is the command line for machines without typer.
"""

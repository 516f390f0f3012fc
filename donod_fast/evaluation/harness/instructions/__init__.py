"""The instructions of IFEval: 25 kinds, their checks, and a verdict on a response (arXiv 2311.07911)."""

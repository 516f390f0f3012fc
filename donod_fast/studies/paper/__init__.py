"""The tables and figures of DONOD (arXiv 2504.14810) in one study, from one recipe, beside the paper's own numbers."""

"""From a batch to rows of scores: settings, the scorer, the token budget, the dry run and the numerics check."""

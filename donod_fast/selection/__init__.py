"""From columns of scores to a subset: ranking, how much is kept, comparison and explanation."""

"""From columns of scores to a subset: ranking, choosing how much to keep, comparing criteria, explaining rows."""

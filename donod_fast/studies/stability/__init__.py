"""The stability study: how the quality of the data changes what selection does."""

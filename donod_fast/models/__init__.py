"""Load, prove and run a causal language model: trunk, output layer, packing, attention, placement."""

"""The focus study: the output layer against the other layers."""

"""The stability study: held-out loss by kept share and method."""

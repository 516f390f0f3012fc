"""The threshold study: methods, kept shares and seeds."""

"""Processes that score on one device each, and the queue of parts that they share."""

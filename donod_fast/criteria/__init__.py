"""Further criteria from the same forward pass: ``base.py`` defines the interface, ``registry.py`` lists them all."""

"""Studies: grids of score, select, train, evaluate, whose cells are kept and can be resumed."""

"""How one network learns: its schedule, stage I, the context branch, stage II."""

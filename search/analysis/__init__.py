"""Studies of searches and rewards: rank correlation, fidelity, replay, simulation, reports."""

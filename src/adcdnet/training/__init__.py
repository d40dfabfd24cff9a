"""What training sees, its stages, and the run folder it leaves."""

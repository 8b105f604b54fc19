"""The solvers, a file each."""

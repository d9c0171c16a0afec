"""What `make` runs: gets a machine ready for `pulumi up`, and runs it. Standard library only."""

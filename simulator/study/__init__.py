"""Studies: tables over many played experiments. Nothing here looks inside a graph."""

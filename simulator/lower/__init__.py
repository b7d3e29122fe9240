"""Lower: programs and prices as task graphs and seconds. Nothing here plays them."""

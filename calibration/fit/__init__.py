"""Constants of cost models and libraries, fitted to rows."""

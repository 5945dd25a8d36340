"""Tollgate's services. Each owns its folder; what two of them use is in `common`."""

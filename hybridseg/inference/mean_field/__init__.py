"""Mean field: approximate marginals of fully connected CRFs, pixel grids and region graphs."""

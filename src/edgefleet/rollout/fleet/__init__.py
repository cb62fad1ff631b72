"""The fleet in columns: facts by row, selectors, eligibility, scope and the cut."""

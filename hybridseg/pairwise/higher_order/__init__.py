"""Terms of many sites: cliques that should agree, and the set of labels that occur."""

"""Row operations between a block's matrix products: one compiled pass, or torch where none is."""

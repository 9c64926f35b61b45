"""Tables of published runs, and what writes them into the documents."""

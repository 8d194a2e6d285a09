"""What `raskrank bench` and `raskrank compare` measure, and what they say of it. Nothing here is imported to rank."""

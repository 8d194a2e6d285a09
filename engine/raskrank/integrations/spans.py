"""Where in a document's own text a span of the text lies that the model was given."""

SPAN = "relevance_span"  # its name in the metadata of every framework


def within(span: tuple[int, int], begin: int, length: int) -> tuple[int, int]:
    """The part of `span` in the text of `length` characters that begins at `begin`; empty where it lies outside."""
    start, end = (min(max(place - begin, 0), length) for place in span)
    return start, end

"""`raskrank serve`: a Reranker behind HTTP, in the shapes that clients of TEI, Cohere, Jina, vLLM, infinity and Voyage send."""

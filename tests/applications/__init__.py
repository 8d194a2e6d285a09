"""Tests beside frameworks, clients and servers, which live in an environment of their own: `make test-applications`."""

"""Tests: small models built in code, compared with the reference libraries."""

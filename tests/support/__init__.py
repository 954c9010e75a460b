"""Helpers that several test folders share: fakes, seeded generators, benches."""

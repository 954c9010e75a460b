"""What a run of scenarios looked like: as a value, a table, JUnit XML, and a page with a timeline."""

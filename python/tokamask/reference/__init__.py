"""The definition of every algorithm, in plain numpy: specification, test oracle, and the page to read first."""

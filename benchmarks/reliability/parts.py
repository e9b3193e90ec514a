"""The parts of what is tried to break the library."""

#: Module of each part, and what it tries. Each has ``measure(seconds, seed) -> list[Table]``.
PARTS = {
    "sweep": "every kernel, with every range checked, over widths, heights, labels and channels",
    "guard_pages": "every kernel with memory that cannot be touched before and after each array",
    "model_files": "model files that were damaged or made to harm",
    "pictures": "pictures, volumes and label maps that were damaged or are of a rare form",
    "inputs": "arguments of all public functions and estimators that make no sense",
    "threads": "every estimator from eight threads against one",
}

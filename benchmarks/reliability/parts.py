"""The parts of the reliability benchmark."""

#: The module of each part, and what it tests. Each has ``measure(seconds, seed) -> list[Table]``.
PARTS = {
    "sweep": "every kernel with bounds checks, over widths, heights, labels and channels",
    "guard_pages": "every kernel with inaccessible memory before and after each array",
    "model_files": "damaged and malicious model files",
    "images": "damaged and unusual images, volumes and label maps",
    "inputs": "invalid arguments for all public functions and estimators",
    "threads": "every estimator, used by eight threads and by one",
}

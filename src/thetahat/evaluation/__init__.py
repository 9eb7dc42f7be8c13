"""From a model and data: scores and their comparison, predictions, residuals, marginal effects,
calibration."""

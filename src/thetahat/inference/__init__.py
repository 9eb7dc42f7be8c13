"""From an objective and a θ̂: covariances, intervals, profiles, tests, the bootstrap, criteria, functions
of the estimates."""

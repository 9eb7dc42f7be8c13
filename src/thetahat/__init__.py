"""thetahat: maximum likelihood as the one principle."""

// expiry

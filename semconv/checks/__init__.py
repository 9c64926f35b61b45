"""What a network must and must not do, checked on any experiment, a user's own classes included."""

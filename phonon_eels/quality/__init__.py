"""Are these data what they claim to be? Checks that pass, warn or fail, and what can be measured of the detector."""

"""The tangent model of a scan, its calibration on views that were held out, and the scores of both."""

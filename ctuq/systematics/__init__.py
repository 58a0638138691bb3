"""What real scanners do wrong, as a part of the linear model: each systematic error is a few more columns of what rays see.

    y = A f + sum_k N_k eta_k + noise,      eta_k ~ N(0, s_k I)

``N_k`` is the derivative of the rays by the error: `shapes` has those that the line integrals give (hardening, scatter, scale),
`pose` those of the geometry (axis, shift and angle of each view, distance), `detector` those of single views and columns (flux,
gain). `catalogue` names them, says their units and how large they may be, and reads what a user asks for; `build` makes the
blocks of a scan. What a scan can tell of a block's size is learned by the evidence. What hides in the image has a width that is
knowledge, not measurement.
"""

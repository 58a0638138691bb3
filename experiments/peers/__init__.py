"""Error bars of other programs and of simpler kinds beside ctuq's, on the same rays, held-out views and unseen views."""

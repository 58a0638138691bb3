"""The edge: commands, report and figures. Nothing below imports it."""

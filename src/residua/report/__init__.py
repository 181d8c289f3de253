"""The facts of a run -> its report; results of studies and comparisons -> their pages."""

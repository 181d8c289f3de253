"""Claims of the papers and tutorials, each as something that anyone runs again with one command."""

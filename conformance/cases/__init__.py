"""One module per public repository: where its kernels are, their inputs and their references."""

"""The real programs compiled for TPUs and GPUs on a machine that has neither, and what the compiler says of them."""

"""Programs as native code: tables and micro-kernels, the loop and the threads that walk them, files that keep them."""

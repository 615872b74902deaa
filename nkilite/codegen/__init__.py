"""Native code: micro-kernel algorithms written as LLVM text."""

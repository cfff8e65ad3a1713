// A header-only module; the package manager wants a source file.

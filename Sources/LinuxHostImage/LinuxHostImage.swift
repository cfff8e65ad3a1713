// Entry: see Main.swift.

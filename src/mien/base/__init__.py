"""What every other room stands on: errors, labels, the faces table, ledgers, files, locks, progress and strict YAML."""

# The five verbs, for people. Without `just`, run what stands below them.

# format and lints, as CI wants them
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# every test; installs what is missing
test *args:
    tests/run {{args}}

# one node on the embedded store
run *args:
    cargo run --release -- {{args}}

# bots against a running node, such as: just load run launch-day --out today
load *args:
    cargo run --release -p load -- {{args}}

# benches of the pure parts
bench *args:
    cargo bench --workspace {{args}}

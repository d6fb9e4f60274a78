//! Has Cargo build again when a migration comes or goes: `sqlx::migrate!` watches the files that it found, and not their folder.

#![allow(clippy::print_stdout)] // It is how Cargo is told.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

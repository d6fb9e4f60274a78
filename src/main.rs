//! The command line program. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    phasegate::cli::main()
}

//! The command line program. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    // Arms the points named in FAILPOINTS, in builds that have any.
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    phasegate::cli::main()
}

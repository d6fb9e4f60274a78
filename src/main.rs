//! The command line program. Everything it does is in the library.

/// Pages of rows come and go on every thread, which the system's own allocator answers by keeping ever more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Arms the points named in FAILPOINTS, in builds that have any.
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    phasegate::cli::main()
}

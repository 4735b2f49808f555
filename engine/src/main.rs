//! The `dispatch` program.

fn main() -> std::process::ExitCode {
    dispatch_engine::cli::run()
}

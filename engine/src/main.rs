//! The `dispatch` program.

/// Also SQLite's: with the system's allocator a campaign with callbacks takes a sixth longer and a tenth more memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    dispatch_engine::cli::run()
}

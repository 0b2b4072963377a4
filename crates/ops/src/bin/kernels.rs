//! Compiles the CUDA kernels for one target with a given NVRTC into a folder for `TANGELO_KERNEL_IMAGES`, and prints what
//! the compiler says of them: `kernels LIBRARY TARGET FOLDER`. `cargo run -p xtask -- cuda` calls it for all targets.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};
use tangelo_ops::cuda::{Compiler, Target};

fn main() -> ExitCode {
    match run() {
        Ok(log) => {
            println!("{log}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The compiler's messages.
fn run() -> Result<String, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [library, target, folder] = args.as_slice() else {
        return Err("usage: kernels LIBRARY TARGET FOLDER".into());
    };
    let target: Target = target.parse()?;
    let compiler = Compiler::load(Path::new(library))?;
    let compiled = compiler.compile(target)?;
    let cuda = format!("{}.{}", compiler.version() / 1000, compiler.version() % 1000 / 10);
    let folder = Path::new(folder);
    fs::create_dir_all(folder.join(&cuda))?;
    fs::write(folder.join(&cuda).join(target.to_string()), &compiled.image)?;
    fs::write(folder.join("sources"), format!("{:016x}\n", Compiler::sources()))?;
    Ok(compiled.log)
}

//! Generates the wire types with protox, which needs no protoc on the machine.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 5] = [
    "proto/worker.proto",
    "proto/api.proto",
    "proto/node.proto",
    "proto/exec.proto",
    "proto/externalscaler.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Params, outputs and definitions travel as shared slices of the message they came in.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

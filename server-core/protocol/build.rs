//! Compiles the protos without a protoc binary; `raw_*_contents` stay slices of the received bytes.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["grpc_service.proto", "model_config.proto", "health.proto"];
    let set = protox::compile(protos, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&set))?;
    let mut prost = tonic_prost_build::Config::new();
    prost.bytes([
        ".inference.ModelInferRequest.raw_input_contents",
        ".inference.ModelInferResponse.raw_output_contents",
    ]);
    prost.btree_map(["."]);
    tonic_prost_build::configure()
        .build_client(true)
        .codec_path("crate::grpc::BoundedCodec")
        .compile_fds_with_config(set, prost)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}

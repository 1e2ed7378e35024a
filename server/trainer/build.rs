//! Compiles the C++ shims, and tells the linker where libtorch is.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=build.rs");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    // A folder of links, as in a virtual environment, would not do at run time: libtorch looks for
    // its other libraries beside the real file.
    let real = fs::canonicalize(Path::new(&lib).join("libtorch_cpu.so")).expect("libtorch_cpu.so is there");
    let lib = real.parent().expect("a file has a folder");
    let torch = lib.parent().expect("libtorch is torch/lib");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    for path in run_paths(lib, &out) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
    // libtorch_cpu.so of the CUDA wheel leaves symbols to libraries that are loaded later or never.
    println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");

    let includes = [torch.join("include"), torch.join("include/torch/csrc/api/include")];
    let compiler = || {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(2).pic(true).warnings(false).includes(&includes);
        build
    };
    compiler().file("cpp/shim.cpp").compile("pba_shim");

    // The CUDA shim is a shared object of its own, which the binary carries inside and loads after
    // libtorch_cuda.so. Without CUDA's headers it is empty, and the strategy `graphs` is refused.
    let shim = out.join("libpba_cuda.so");
    let headers = torch.parent().map(|site| site.join("nvidia/cu13/include")).filter(|path| path.is_dir());
    let built = headers.is_some_and(|headers| {
        let mut command = compiler().include(headers).get_compiler().to_command();
        command.args(["-shared", "cpp/shim_cuda.cpp", "-o"]).arg(&shim);
        command.status().is_ok_and(|status| status.success())
    });
    if !built {
        println!("cargo:warning=CUDA headers not found: pba-trainer is built without the strategy `graphs`");
        fs::write(&shim, []).expect("OUT_DIR can be written");
    }
    println!("cargo:rustc-env=PBA_CUDA_SHIM={}", shim.display());
}

/// Where the binary looks for libtorch: in `../lib` once it is installed, and before that where it
/// was built against. A libtorch inside this repository is named relative to the binary, so that
/// no path of the machine that built it is left in it, and the repository may be moved.
fn run_paths(lib: &Path, out: &Path) -> Vec<String> {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let repository = fs::canonicalize(Path::new(&manifest).join("../..")).expect("the repository is there");
    let mut paths = vec!["$ORIGIN/../lib".to_owned()];
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out; binaries are in PROFILE, tests in PROFILE/deps.
    let profile = out.ancestors().nth(3).and_then(|profile| fs::canonicalize(profile).ok());
    let profile = profile.as_ref().and_then(|profile| profile.strip_prefix(&repository).ok());
    match (profile, lib.strip_prefix(&repository)) {
        (Some(profile), Ok(lib)) => {
            let up = "../".repeat(profile.components().count());
            paths.extend(["", "../"].map(|more| format!("$ORIGIN/{more}{up}{}", lib.display())));
        }
        _ => paths.push(lib.to_str().expect("the path of libtorch is UTF-8").to_owned()),
    }
    paths
}

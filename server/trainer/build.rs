//! Compiles the C++ shims, and tells the linker where libtorch lies.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=build.rs");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch lies");
    // A folder of links (a virtual environment, say) is no use at run time: libtorch looks for
    // its companions beside the real file.
    let real = fs::canonicalize(Path::new(&lib).join("libtorch_cpu.so")).expect("libtorch_cpu.so is there");
    let lib = real.parent().expect("a file has a folder");
    let torch = lib.parent().expect("libtorch is torch/lib");
    for path in [lib.to_str().expect("the path of libtorch is UTF-8"), "$ORIGIN/../lib"] {
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
    let shim = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("libpba_cuda.so");
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

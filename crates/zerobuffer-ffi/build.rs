//! Names the shared library after its binary interface, so that a program finds the one that it was
//! built for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libzerobuffer.so.0");
}

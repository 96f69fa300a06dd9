//! One target of the fuzzer, chosen by `ZEROBUFFER_FUZZ_TARGET`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: std::sync::OnceLock<zerobuffer_fuzz::Target> = std::sync::OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("ZEROBUFFER_FUZZ_TARGET").expect("ZEROBUFFER_FUZZ_TARGET is set");
        zerobuffer_fuzz::target(&name).expect("there is such a target")
    });
    target(bytes);
});

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("this program is built by: cargo xtask fuzz");
    std::process::exit(2);
}

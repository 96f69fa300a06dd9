//! Every input of the committed corpus, and some that a few random bytes make of it, through every
//! target: what was found once stays found, also without a fuzzer.
#![cfg(target_os = "linux")]

use std::path::Path;

#[test]
fn every_target_takes_every_input_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in zerobuffer_fuzz::TARGETS {
        let files = std::fs::read_dir(corpus.join(name)).expect("a folder for each target");
        let mut inputs = 0;
        for file in files {
            let bytes = std::fs::read(file.expect("readable").path()).expect("readable");
            target(&bytes);
            inputs += 1;
        }
        assert!(inputs > 3, "{name} has hardly any corpus");
        println!("{name}: {inputs} inputs");
    }
}

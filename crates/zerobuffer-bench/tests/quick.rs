//! The program as CI runs it: that it works and what it writes, not how fast anything is.

use serde_json::Value;
use std::process::Command;

fn bench(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zerobuffer-bench")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn leftovers() -> Vec<String> {
    std::fs::read_dir("/dev/shm")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("zerobuffer-bench-"))
        .collect()
}

#[test]
fn a_quick_run_writes_the_agreed_json_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench.json");
    let path = file.to_str().unwrap();
    let args = ["--quick", "--only", "P1,P6,D1", "--rounds", "3", "--json", path];
    let (success, table, errors) = bench(&args);
    assert!(success, "{errors}");

    let json: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(json["machine"].is_object() && json["commit"].is_string());
    let listed = |list: &str, id: &str| {
        json[list].as_array().unwrap().iter().find(|one| one["id"] == id).cloned()
    };
    let p6 = listed("figures", "P6").unwrap();
    assert!(p6["ratio"].as_f64().unwrap() <= 0.505, "{p6}");
    match listed("figures", "P1") {
        Some(p1) => {
            assert_eq!(p1["rounds"], 3);
            assert_eq!(p1["unit"], "ns");
            let number = |field: &str| p1[field].as_f64().unwrap();
            assert!(number("min") > 0.0 && number("min") <= number("median"));
            assert!(number("median") <= number("max"));
            assert!(number("limit") > 0.0 && number("ratio") > 0.0);
            assert!(listed("latencies", "D1").unwrap()["p50"].as_u64().unwrap() > 0);
            assert!(table.contains("Client::call, 8 bytes, both sides spinning"), "{table}");
        }
        // A machine with one CPU says so.
        None => assert!(listed("not_measured", "P1").is_some(), "{json}"),
    }
    assert_eq!(leftovers(), [] as [String; 0]);
}

#[test]
fn an_unknown_figure_is_refused() {
    let (success, _, errors) = bench(&["--only", "P99"]);
    assert!(!success && errors.contains("no figure P99"), "{errors}");
}

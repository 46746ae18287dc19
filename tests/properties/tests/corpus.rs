//! Every input that is kept, through its property: what fuzzing found once stays found.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use clerk_sync_properties::{ALL, Property};

fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let folder = fuzz.join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths
}

/// The inputs in a folder for which a property does not hold, and how many there are in all.
fn broken(folder: &str) -> (Vec<PathBuf>, usize) {
    let holds = |property: Property, path: &PathBuf| {
        let input = fs::read(path).expect("a readable file");
        catch_unwind(AssertUnwindSafe(|| property(&input))).is_ok()
    };
    let mut broken = Vec::new();
    let mut all = 0;
    for (target, property) in ALL {
        let inputs = inputs(folder, target);
        all += inputs.len();
        broken.extend(inputs.into_iter().filter(|path| !holds(property, path)));
    }
    (broken, all)
}

#[test]
fn every_property_holds_for_every_input_that_is_kept() {
    let (broken, all) = broken("corpus");
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(all >= 100, "there is a corpus: {all}");
}

#[test]
fn what_fuzzing_found_stays_found() {
    let (broken, _) = broken("regressions");
    assert!(broken.is_empty(), "{broken:#?}");
}
